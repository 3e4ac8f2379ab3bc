-- Write down what a probe found, and judge how sure it is: N of the last M probes make a failure.
-- ARGV: prefix, target, component, depth (light|deep), host, healthy (0|1), failure type, summary,
--       figures (JSON), latency ms, is proven (0|1), and in one argument the policy's numbers:
--       N, M, life ms, points of history
-- proven: a recovery has just probed it; a healthy word of its own ends a failure at once
-- answers {state, follow}; follow: again (look again soon, to be sure), failed, recovered, or ''
local target, component, depth, host = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local healthy, failure, summary, figures = ARGV[6] == '1', ARGV[7], ARGV[8], ARGV[9]
local latency, is_proven = ARGV[10], ARGV[11] == '1'
local needed, looks, life, points = string.match(ARGV[12], '(%d+) (%d+) (%d+) (%d+)')
needed, looks, life = ms(needed), ms(looks), ms(life)
local seen = key('observation', target)

local before = redis.call('HMGET', seen, 'state', 'since_ms', 'light', 'deep')
local was = before[1]
local windows = {light = before[3] or '', deep = before[4] or ''}

local function add(name, mark) windows[name] = string.sub(windows[name] .. mark, -looks) end
local function bad(name) return select(2, string.gsub(windows[name], 'x', '')) end

if healthy and is_proven then
  windows = {light = '', deep = ''}
else
  add(depth, healthy and '.' or 'x')
  -- A deep look sees all that a light one does.
  if healthy and depth == 'deep' then add('light', '.') end
end

local state = 'healthy'
if bad('light') >= needed or bad('deep') >= needed then
  state = 'failing'
elseif string.sub(windows.light, -1) == 'x' or string.sub(windows.deep, -1) == 'x' then
  state = 'suspect'
end

redis.call('HSET', seen, 'state', state, 'healthy', healthy and 1 or 0, 'at_ms', now,
  'latency_ms', latency, 'depth', depth, 'host', host,
  'light', windows.light, 'deep', windows.deep)
if state ~= was then redis.call('HSET', seen, 'since_ms', now) end
-- A light look that is content does not take back what a deep one found.
if not healthy or state == 'healthy' then
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

if state ~= was then publish({kind = 'observed', target = target, state = state}) end
if state == 'suspect' and not healthy then return {state, 'again'} end
if state == 'failing' and was ~= 'failing' then return {state, 'failed'} end
if was == 'failing' and state ~= 'failing' then return {state, 'recovered'} end
return {state, ''}
