-- Switch a scope off for a while, or on again, and write down who did.
-- ARGV: prefix, scope, what is said while it is off ('': on again), ms (0: until it is switched on),
--       entry, is audited (0|1)
-- answers 1 where it changed something
-- include audit
local scope, said, lasts, entry = ARGV[2], ARGV[3], ms(ARGV[4]), ARGV[5]
is_audited = ARGV[6] == '1'
local held_at = key('disabled', scope)
if said == '' then
  if redis.call('DEL', held_at) == 0 then return 0 end
elseif lasts > 0 then
  redis.call('SET', held_at, said, 'PX', lasts)
else
  redis.call('SET', held_at, said)
end
audit(entry)
publish({kind = 'switched', target = scope})
return 1
