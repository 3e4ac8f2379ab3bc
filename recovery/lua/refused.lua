-- Close the bursts of refused events that have gone quiet: one audit line each says how many.
-- A storm that is over is told of too, where nobody probes.
-- ARGV: prefix, quiet ms, longest ms, is audited (0|1)
-- answers how many bursts were closed
-- include audit
-- include storm
local quiet, longest = ms(ARGV[2]), ms(ARGV[3])
is_audited = ARGV[4] == '1'
redis.call('ZREMRANGEBYSCORE', key('failing'), '-inf', now)
judge_storm(0, 0)
local closed = 0
local all = redis.call('HGETALL', key('refused:last'))
for i = 1, #all, 2 do
  local burst, last = all[i], ms(all[i + 1])
  local first = ms(redis.call('HGET', key('refused:first'), burst))
  if now - last >= quiet or now - first >= longest then
    local count = ms(redis.call('HGET', key('refused:count'), burst))
    if count > 1 then
      local target, reason = string.match(burst, '^(.*)|(.-)$')
      audit(cjson.encode({target = target, result = 'refused', reason = reason, count = count,
        first_ms = first, last_ms = last}))
    end
    for _, kind in ipairs({'count', 'first', 'last'}) do
      redis.call('HDEL', key('refused:' .. kind), burst)
    end
    closed = closed + 1
  end
end
return closed
