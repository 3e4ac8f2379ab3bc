-- Forget what is held under a name, where it still is this value.
-- ARGV: prefix, name, value
local held = key('held', ARGV[2])
if redis.call('GET', held) ~= ARGV[3] then return 0 end
return redis.call('DEL', held)
