-- A worker says that it lives, and who was silent for too long is forgotten.
-- ARGV: prefix, node, forget after ms, then field, value, ...
local node, forget_after = ARGV[2], ms(ARGV[3])

local facts = {}
for i = 4, #ARGV do facts[#facts + 1] = ARGV[i] end
redis.call('HSET', key('worker', node), 'seen', now, unpack(facts))
redis.call('ZADD', key('workers'), now, node)
for _, silent in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', now - forget_after)) do
  redis.call('DEL', key('worker', silent))
  redis.call('ZREM', key('workers'), silent)
end
