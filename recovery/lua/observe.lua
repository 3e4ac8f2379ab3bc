-- Write down what a probe found, and judge: how sure is it, since when, and what must follow?
-- ARGV: prefix, target, component, depth (light|deep), host, healthy (0|1), failure type, summary,
--       figures (JSON), latency ms, is proven (0|1), id for an event where one is due ('': none is
--       wanted), and in one argument the policy's numbers:
--       failures N of M looks, life ms, points of history, how long a failing look is believed ms,
--       healthy after ms, probation ms, changes that are flapping, their window ms, hold ms,
--       size of a storm, its calm ms, how long an event lives ms, is audited (0|1), and the bounds of
--       the histograms (comma separated, seconds)
-- proven: a recovery has just probed it; its healthy word ends a failure at once
-- answers {state, follow, event id}; follow: again (look again soon, to be sure), failed, recovered,
-- or ''; an event id where the event has to be sent now, the one of before where that seems lost
-- include audit
-- include histogram
-- include level
-- include mode
-- include storm
local LOST = 10000
local target, component, depth, host = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local healthy, failure, summary, figures = ARGV[6] == '1', ARGV[7], ARGV[8], ARGV[9]
local latency, is_proven, event = ARGV[10], ARGV[11] == '1', ARGV[12]
local numbers = {}
for number in string.gmatch(ARGV[13], '%d+') do
  numbers[#numbers + 1] = tonumber(number)
  if #numbers == 14 then break end
end
local needed, looks, life, points, believed, healthy_after, probation, flaps, flap_window, flap_hold,
  storm_size, calm, event_life, audited = unpack(numbers)
local bounds = string.match(ARGV[13], '%S+$')
is_audited = audited == 1
local seen, state_of_target = key('observation', target), key('target', target)

local before = redis.call('HMGET', seen, 'phase', 'since_ms', 'light', 'deep', 'bad_ms', 'well_ms',
  'event_ms', 'retry_ms', 'refused', 'event', 'event_again', 'refused_failure')
local was, since, bad_ms, well_ms = before[1], ms(before[2]), ms(before[5]), ms(before[6])
local windows = {light = before[3] or '', deep = before[4] or ''}

local function add(name, mark) windows[name] = string.sub(windows[name] .. mark, -looks) end
local function bad(name) return select(2, string.gsub(windows[name], 'x', '')) end

-- Up or down: often enough within the window, and the target is left alone.
local function note_change()
  local changes, flapping = key('changes', target), key('flapping', target)
  redis.call('ZADD', changes, now, redis.call('HINCRBY', seen, 'changes', 1))
  redis.call('ZREMRANGEBYSCORE', changes, '-inf', now - flap_window)
  redis.call('PEXPIRE', changes, flap_window)
  local count = redis.call('ZCARD', changes)
  if count < flaps then return end
  local is_new = redis.call('EXISTS', flapping) == 0
  redis.call('SET', flapping, count, 'PX', flap_hold)
  if not is_new then return end
  local why = 'it changed ' .. count .. ' times between healthy and failing'
  audit(cjson.encode({target = target, result = 'flapping', detail = why}))
  raise_level(target, 3, why)
end

-- Healthy without a remedy: nothing that a failure left behind may outlast it.
local function clear()
  local held = redis.call('HMGET', state_of_target, 'level', 'trial', 'healthy_from', 'rerouted')
  local degraded = redis.call('HEXISTS', key('degraded'), target) == 1
  local level, healthy_from = ms(held[1]), ms(held[3])
  -- Who is led around the target is led back before anything ends.
  if held[4] or (level <= 1 and not degraded and not held[2]) then return end
  if redis.call('EXISTS', key('flapping', target), key('lease', target)) > 0 then return end
  if (level > 1 or degraded) and now - since >= healthy_after then
    restore(target, '', level)
    audit(cjson.encode({target = target, result = 'healthy', level = 1,
      detail = 'healthy for ' .. math.floor((now - since) / 1000) .. ' s without a remedy'}))
  end
  if not held[2] then return end
  if healthy_from == 0 then
    redis.call('HSET', state_of_target, 'healthy_from', now)
  elseif now - healthy_from >= probation then
    redis.call('HDEL', state_of_target, 'trial', 'healthy_from')
    audit(cjson.encode({target = target, result = 'probation_over',
      detail = 'healthy for ' .. math.floor((now - healthy_from) / 1000) .. ' s'}))
  end
end

-- Nobody has decided on it: whoever was to send it may have died first, or its message is lost. The
-- same again is the same recovery, however often it comes.
local function is_event_lost(sent)
  local pause = math.min(LOST * 2 ^ ms(before[11]), event_life)
  if now - sent < pause then return false end
  event = before[10]
  redis.call('HINCRBY', seen, 'event_again', 1)
  return true
end

-- Once a failure, and again when the gate said to come again.
local function is_event_due()
  if event == '' or failure == '' or healthy then return false end
  if redis.call('EXISTS', key('lease', target), key('cooldown', target)) > 0 then return false end
  local sent, retry = ms(before[7]), ms(before[8])
  if retry > 0 then
    -- Who said no to one failure has said nothing of another.
    return now >= retry or (before[9] == 'denied' and before[12] ~= failure)
  end
  if sent == 0 then return true end
  local decided = redis.call('HGET', key('recovery', before[10]), 'state')
  if decided == 'awaiting_approval' then return false end
  if not decided and redis.call('EXISTS', key('decision', before[10])) == 0 then return is_event_lost(sent) end
  return now - sent >= event_life
end

if healthy and is_proven then
  windows = {light = '', deep = ''}
else
  add(depth, healthy and '.' or 'x')
  -- A deep look sees all that a light one does.
  if healthy and depth == 'deep' then add('light', '.') end
end

local phase = 'healthy'
if bad('light') >= needed or bad('deep') >= needed then
  phase = 'failing'
elseif string.sub(windows.light, -1) == 'x' or string.sub(windows.deep, -1) == 'x' then
  phase = 'suspect'
end
local fell = phase == 'failing' and was ~= 'failing'
local rose = phase ~= 'failing' and was == 'failing'

if phase ~= was then since = now end
if phase ~= 'healthy' and bad_ms == 0 then bad_ms = now end
if fell then
  if well_ms > 0 then measure(bounds, 'detect_bucket', 'detect_seconds', component, (now - well_ms) / 1000) end
  redis.call('HDEL', state_of_target, 'healthy_from')
elseif rose then
  measure(bounds, 'outage_bucket', 'outage_seconds', component, (now - bad_ms) / 1000)
end
if fell or rose then
  -- What was refused of another failure, or of a person while nothing failed, holds up nothing now.
  redis.call('HDEL', seen, 'event_ms', 'retry_ms', 'refused', 'refused_why', 'refused_failure')
  before[7], before[8], before[9] = false, false, false
end
-- The first word of a target is no change.
if rose or (fell and was) then note_change() end

if phase == 'healthy' then
  well_ms, bad_ms = now, 0
  redis.call('ZREM', key('failing'), target)
  clear()
else
  -- Suspects count: what breaks together is not found out at the same instant.
  note_failing(target, now + believed)
end
judge_storm(storm_size, calm)

local state = phase
if redis.call('EXISTS', key('flapping', target)) == 1 then
  state = 'flapping'
elseif phase == 'failing' and (before[9] == 'dependency' or before[9] == 'storm') then
  state = 'held'
end

redis.call('HSET', seen, 'phase', phase, 'state', state, 'since_ms', since,
  'healthy', healthy and 1 or 0, 'at_ms', now, 'latency_ms', latency, 'depth', depth, 'host', host,
  'light', windows.light, 'deep', windows.deep, 'well_ms', well_ms, 'bad_ms', bad_ms)
-- A light look that is content does not take back what a deep one found.
if not healthy or phase == 'healthy' then
  redis.call('HSET', seen, 'failure_type', failure, 'summary', summary, 'figures', figures)
end
redis.call('PEXPIRE', seen, life)
redis.call('ZADD', key('observed'), now + life, target)
redis.call('ZREMRANGEBYSCORE', key('observed'), '-inf', now)

local history = key('observations', target)
redis.call('LPUSH', history, cjson.encode({now, tonumber(latency), healthy, failure}))
redis.call('LTRIM', history, 0, points - 1)
redis.call('PEXPIRE', history, life)
redis.call('HINCRBY', key('counters'), 'probe|' .. component .. '|' .. (healthy and 'healthy' or failure), 1)

local follow = ''
if fell then follow = 'failed'
elseif rose then follow = 'recovered'
elseif phase == 'suspect' and not healthy then follow = 'again' end
if follow ~= 'again' and not is_proven then redis.call('HDEL', key('looks', target), depth .. ':until') end
if phase ~= was then publish({kind = 'observed', target = target, state = state}) end

if phase == 'failing' and is_event_due() then
  redis.call('HSET', seen, 'event_ms', now, 'event', event)
  redis.call('HDEL', seen, 'retry_ms', 'refused', 'refused_why', 'refused_failure')
  if event ~= before[10] then redis.call('HDEL', seen, 'event_again') end
  return {state, follow, event}
end
return {state, follow, ''}
