-- End what is held of a target that the policy no longer has, so that nothing of it lasts for ever.
-- Not while somebody still looks at it or repairs it: that host has another policy, for now.
-- ARGV: prefix, target, is audited (0|1)
-- answers 1 where it is forgotten
-- include audit
-- include mode
local target = ARGV[2]
is_audited = ARGV[3] == '1'
if redis.call('EXISTS', key('observation', target), key('lease', target)) > 0 then return 0 end

local state = key('target', target)
local level = ms(redis.call('HGET', state, 'level'))
redis.call('HDEL', state, 'rerouted')
restore(target, '', level)
redis.call('HDEL', key('routes'), target)
redis.call('DEL', state)
redis.call('ZREM', key('failing'), target)
audit(cjson.encode({target = target, result = 'departed', detail = 'the policy no longer has it'}))
return 1
