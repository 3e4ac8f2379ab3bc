-- Note what Alertmanager says of one matter, a target and a failure type, and answer whether it is
-- an event now. Said again, or in another order, it answers the same.
-- ARGV: prefix, matter, life s, repeat ms, most fingerprints kept, then of each alert its
--       fingerprint, since when in ms, firing (0|1)
-- answers {send|known|under_way|over, id, n, newest ms, {firing|over|stale for each alert}}
-- over: none of the matter's alerts fires any more
local matter, life, wait, most = ARGV[2], ms(ARGV[3]), ms(ARGV[4]), ms(ARGV[5])
local held_at = key('alerted', matter)

local fires_since, words = {}, {}
for i = 6, #ARGV, 3 do
  local field, starts, fires = 'f:' .. ARGV[i], ms(ARGV[i + 1]), ARGV[i + 2]
  local held = redis.call('HGET', held_at, field)
  local since, fired = string.match(held or '', '^(%d+)|(%d)$')
  since = ms(since)
  -- What is over does not begin again with the same start: that message was only late.
  local is_stale = starts < since or (starts == since and fired == '0' and fires == '1')
  if is_stale then
    words[#words + 1] = 'stale'
  else
    -- What cannot be noted is an event all the same.
    if held or redis.call('HLEN', held_at) < most then
      redis.call('HSET', held_at, field, string.format('%.0f', starts) .. '|' .. fires)
    end
    words[#words + 1] = fires == '1' and 'firing' or 'over'
    fires_since[field] = fires == '1' and starts or nil
  end
end

local newest, firing, over = 0, 0, {}
for _, since in pairs(fires_since) do newest = math.max(newest, since) end
local all = redis.call('HGETALL', held_at)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'f:' then
    if string.sub(all[i + 1], -1) == '1' then firing = firing + 1 else over[#over + 1] = all[i] end
  end
end
if firing + #over >= most / 2 then
  for _, field in ipairs(over) do redis.call('HDEL', held_at, field) end
end
redis.call('EXPIRE', held_at, life)

local sent = redis.call('HMGET', held_at, 'id', 'n', 'sent_since', 'sent_ms')
local id, n, sent_since, sent_ms = sent[1] or '', ms(sent[2]), ms(sent[3]), ms(sent[4])

local function answer(verdict)
  return {verdict, id, n, string.format('%.0f', newest), words}
end

if newest == 0 then return answer(firing > 0 and 'known' or 'over') end
local state = id ~= '' and redis.call('HGET', key('recovery', id), 'state')
if state and state ~= 'concluded' then return answer('under_way') end
if newest > sent_since or now - sent_ms >= wait then return answer('send') end
return answer('known')
