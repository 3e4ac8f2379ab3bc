-- Put before every other script: the clock, the key names, and the few writes that they share.
-- Keys are built here because one Redis, never a cluster, holds the control plane.
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local HOUR = 3600000
local DECISION_TTL = 60
-- When to ask again after a refusal that names no time, or one that a person may take back.
local UNHELPED = 60000

local function key(kind, name)
  if name then return prefix .. kind .. ':' .. name end
  return prefix .. kind
end

local function ms(text) return tonumber(text) or 0 end

local function publish(fact)
  redis.call('PUBLISH', key('events'), cjson.encode(fact))
end

local function alert(fact)
  fact.at = now
  redis.call('XADD', key('outbox'), 'MAXLEN', '~', 10000, '*', 'alert', cjson.encode(fact))
end

-- A script whose policy says `audit.enabled: false` sets this to false.
local is_audited = true
local CLOCK_AHEAD = 1000

-- The number tells whoever reads the trail that an entry is missing. The id is the entry's time,
-- unless that stands in the entry: for what is told late, and after a clock that ran ahead, because
-- the ids of a stream never go back.
local function audit(json, happened)
  if not is_audited then return '' end
  local entry = string.sub(json, 1, -2) .. ',"n":' .. redis.call('INCR', key('audit', 'n'))
  local function add(moment)
    local at = moment and ',"at_ms":' .. string.format('%.0f', moment) or ''
    return redis.call('XADD', key('audit'), '*', 'entry', entry .. at .. '}')
  end
  if happened and happened < now then return add(happened) end
  local id = add()
  if ms(string.match(id, '^%d+')) <= now + CLOCK_AHEAD then return id end
  redis.call('XDEL', key('audit'), id)
  return add(now)
end

-- A histogram: how many by upper bound, and the sum; bounds comma separated, in seconds.
local function measure(bounds, bucket_name, sum_name, what, seconds)
  local bucket = '+Inf'
  for bound in string.gmatch(bounds, '[^,]+') do
    if tonumber(seconds) <= tonumber(bound) then bucket = bound break end
  end
  redis.call('HINCRBY', key('counters'), bucket_name .. '|' .. what .. '|' .. bucket, 1)
  redis.call('HINCRBYFLOAT', key('counters'), sum_name .. '|' .. what, seconds)
end

local function failures_in_hour(target)
  return redis.call('ZCOUNT', key('failures', target), now - HOUR, '+inf')
end

-- The level is raised here, lowered only where health is proven.
local function raise_level(target, level, why)
  local held = ms(redis.call('HGET', key('target', target), 'level'))
  if held >= level then return held end
  redis.call('HSET', key('target', target), 'level', level, 'level_since', now, 'level_why', why)
  alert({kind = 'level', target = target, level = level, why = why})
  publish({kind = 'level', target = target, level = level})
  return level
end

-- A degraded mode is set once and ended where health is proven. `runs`: the recovery with whose end
-- it ends at the latest; nil where it holds until then.
local function enter_mode(target, mode, id, severity, runs)
  if mode == '' or redis.call('HEXISTS', key('degraded'), target) == 1 then return end
  local held = string.sub(mode, 1, -2) .. ',"since":' .. now .. ',"recovery_id":' .. cjson.encode(id)
  if runs then held = held .. ',"while_runs":' .. cjson.encode(runs) end
  held = held .. '}'
  redis.call('HSET', key('degraded'), target, held)
  redis.call('PUBLISH', key('degraded'),
    '{"target":' .. cjson.encode(target) .. ',"active":true,' .. string.sub(held, 2))
  alert({kind = 'degraded', target = target, mode = cjson.decode(mode).mode, id = id, severity = severity})
end

local function end_mode(target, id)
  local held = redis.call('HGET', key('degraded'), target)
  if not held then return end
  held = cjson.decode(held).mode
  redis.call('HDEL', key('degraded'), target)
  redis.call('PUBLISH', key('degraded'), cjson.encode({target = target, mode = held, active = false}))
  alert({kind = 'degraded_over', target = target, mode = held, id = id})
end

-- Health is proven: no person is needed, and applications may use everything again. Not so while
-- people are led around the target: only whoever leads them back ends that.
local function restore(target, id, level)
  if redis.call('HEXISTS', key('target', target), 'rerouted') == 1 then return end
  redis.call('HDEL', key('target', target), 'level', 'level_since', 'level_why')
  if level > 1 then alert({kind = 'resolved', target = target, id = id}) end
  end_mode(target, id)
end

-- Who is known to fail, and until when that is believed without another word of it.
local function note_failing(target, until_ms)
  redis.call('ZADD', key('failing'), 'GT', until_ms, target)
end

-- Too many at once: one call for a person, and the gate is shut for all but foundations until it
-- has been calm for a while.
-- size: how many are a storm, 0 where none can be; answers whether there is one
local function judge_storm(size, calm)
  if size > 0 then
    local failing = redis.call('ZCOUNT', key('failing'), '(' .. now, '+inf')
    if failing >= size then
      redis.call('SET', key('storm'), failing, 'PX', calm)
      if redis.call('SETNX', key('storm:since'), now) == 1 then
        local named = redis.call('ZRANGEBYSCORE', key('failing'), '(' .. now, '+inf', 'LIMIT', 0, 10)
        local text = failing .. ' targets fail at once, among them ' .. table.concat(named, ', ')
        alert({kind = 'storm', target = 'all', failing = failing, why = text, severity = 'P0'})
        audit(cjson.encode({target = 'all', result = 'storm', detail = text}))
        publish({kind = 'storm', active = true})
      end
      return true
    end
  end
  if redis.call('EXISTS', key('storm')) == 1 then return true end
  local since = redis.call('GET', key('storm:since'))
  if since then
    redis.call('DEL', key('storm:since'))
    alert({kind = 'storm_over', target = 'all', severity = 'P0', seconds = (now - ms(since)) / 1000})
    audit(cjson.encode({target = 'all', result = 'storm_over', seconds = (now - ms(since)) / 1000}))
    publish({kind = 'storm', active = false})
  end
  return false
end

-- Where a target's applications are led from now on: stored and published as one text.
local function set_route(target, route)
  for _, name in ipairs({'model', 'primary_model', 'token', 'token_kind', 'token_expires', 'direct', 'recovery_id'}) do
    if route[name] == nil then route[name] = cjson.null end
  end
  route.target, route.generation = target, ms(route.generation) + 1
  local text = cjson.encode(route)
  redis.call('HSET', key('routes'), target, text)
  redis.call('PUBLISH', key('routes'), text)
  return text
end

local function tell_of_route(target, route, id)
  local model = type(route.model) == 'string' and route.model or 'none'
  alert({kind = 'route', target = target, road = route.road, model = model, id = id})
end

local function lease_of(target)
  local held = redis.call('HMGET', key('lease', target), 'id', 'phase', 'token', 'expires', 'give_up',
    'queued')
  if not held[1] then return nil end
  return {id = held[1], phase = held[2], token = held[3], expires = ms(held[4]), give_up = ms(held[5]),
    queued = ms(held[6])}
end

local function hold_lease(target, expires)
  redis.call('HSET', key('lease', target), 'expires', expires)
  redis.call('ZADD', key('leases'), expires, target)
end

local function free_lease(target)
  redis.call('DEL', key('lease', target))
  redis.call('ZREM', key('leases'), target)
end

-- A storm must leave a handful of lines: each burst is one counter with its first and last time.
local function note_refusal(id, target, component, strategy, reason, retry_after, detail)
  local burst = target .. '|' .. reason
  redis.call('HSET', key('refused:last'), burst, now)
  redis.call('HINCRBY', key('counters'), 'refused|' .. component .. '|' .. reason, 1)
  if redis.call('HINCRBY', key('refused:count'), burst, 1) == 1 then
    redis.call('HSET', key('refused:first'), burst, now)
    audit(cjson.encode({id = id, target = target, strategy = strategy, result = 'refused',
      reason = reason, detail = detail}))
  end
  local answer = {recovery_id = id, verdict = 'refused', strategy = strategy, reason = reason,
    detail = detail}
  if retry_after > 0 then answer.retry_after = retry_after / 1000 end
  redis.call('SET', key('decision', id), cjson.encode(answer), 'EX', DECISION_TTL)
  -- Scheduled probes ask again when it may help, not with each look.
  local seen = key('observation', target)
  if redis.call('EXISTS', seen) == 1 then
    local pause = retry_after > 0 and reason ~= 'disabled' and retry_after or UNHELPED
    redis.call('HSET', seen, 'retry_ms', now + pause, 'refused', reason, 'refused_why', detail)
  end
end
