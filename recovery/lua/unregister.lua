-- A worker ends; one that has taken its name meanwhile stays.
-- ARGV: prefix, node, host, pid
local node, host, pid = ARGV[2], ARGV[3], ARGV[4]

local held = redis.call('HMGET', key('worker', node), 'host', 'pid')
if held[1] == host and held[2] == pid then
  redis.call('DEL', key('worker', node))
  redis.call('ZREM', key('workers'), node)
end
