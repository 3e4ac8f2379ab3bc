-- Write one audit entry of something that is no recovery of a target; said twice it is done once.
-- ARGV: prefix, id, entry, happened ms, ttl s, is audited (0|1)
-- answers 1 where it was new
-- include audit
local happened = math.min(ms(ARGV[4]), now)
if not redis.call('SET', key('noted', ARGV[2]), 1, 'NX', 'EX', ms(ARGV[5])) then return 0 end
is_audited = ARGV[6] == '1'
audit(ARGV[3], happened)
return 1
