-- Take, renew or give back the right to seal, and remember the ends of the chain.
-- ARGV: prefix, host, token, ttl ms (0 gives it back), is first (0|1), anchor
-- A first call takes the lock from a process of the same host: who calls holds the folder's own
-- lock, so that one is dead.
-- answers 1, or 0 where somebody else seals
local host, mine, ttl, anchor = ARGV[2], ARGV[2] .. ' ' .. ARGV[3], ms(ARGV[4]), ARGV[6]

if redis.call('HGET', key('audit', 'host'), 'host') ~= host then return 0 end
local held = redis.call('GET', key('audit', 'lock'))
local is_dead = held and ARGV[5] == '1' and string.sub(held, 1, #host + 1) == host .. ' '
if held and held ~= mine and not is_dead then return 0 end
if anchor ~= '' then redis.call('SET', key('audit', 'chain'), anchor) end
if ttl == 0 then
  redis.call('DEL', key('audit', 'lock'))
else
  redis.call('SET', key('audit', 'lock'), mine, 'PX', ttl)
end
return 1
