-- A channel's turn ends; one that began meanwhile stays.
-- ARGV: prefix, channel, token
local name = key('channel:turn', ARGV[2])
if redis.call('GET', name) == ARGV[3] then redis.call('DEL', name) end
