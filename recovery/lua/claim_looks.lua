-- Which probes of a queue are due: each is given away once, by this clock, however many ask.
-- A look that was given away is not given again before it has ended or its time is over; what is
-- overdue is looked at once and not made up for.
-- ARGV: prefix, horizon ms, life ms, then for each look: target, depth, first ms (how long until
--       the first one of all), next ms (how long from this one to the next), hold ms
-- answers {number of the look among the arguments, ms until it is due, ...}
local horizon, life = ms(ARGV[2]), ms(ARGV[3])
local given = {}
for i = 4, #ARGV, 5 do
  local looks, depth = key('looks', ARGV[i]), ARGV[i + 1]
  local held = redis.call('HMGET', looks, depth, depth .. ':until')
  local due = ms(held[1] or now + ms(ARGV[i + 2]))
  if not held[1] then
    redis.call('HSET', looks, depth, due)
    redis.call('PEXPIRE', looks, life)
  end
  if due <= now + horizon and ms(held[2]) <= now then
    local wait = math.max(due - now, 0)
    redis.call('HSET', looks, depth, now + wait + ms(ARGV[i + 3]),
      depth .. ':until', now + wait + ms(ARGV[i + 4]))
    redis.call('PEXPIRE', looks, life)
    given[#given + 1] = (i - 4) / 5
    given[#given + 1] = wait
  end
end
return given
