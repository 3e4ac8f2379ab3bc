-- Put before every other script: the clock, the key names, and the few writes that they share.
-- Keys are built here because one Redis, never a cluster, holds the control plane.
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local HOUR = 3600000
local DECISION_TTL = 60

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

local function failures_in_hour(target)
  return redis.call('ZCOUNT', key('failures', target), now - HOUR, '+inf')
end

-- The level is raised here, lowered only where health is proven.
local function raise_level(target, level, why)
  local held = ms(redis.call('HGET', key('target', target), 'level'))
  if held >= level then return held end
  redis.call('HSET', key('target', target), 'level', level, 'level_since', now)
  alert({kind = 'level', target = target, level = level, why = why})
  publish({kind = 'level', target = target, level = level})
  return level
end

-- Health is proven: no person is needed, and applications may use everything again. Not so while
-- people are led around the target: only whoever leads them back ends that.
-- degraded: what is stored of the target's degraded mode
local function restore(target, id, level, degraded)
  if redis.call('HEXISTS', key('target', target), 'rerouted') == 1 then return end
  redis.call('HDEL', key('target', target), 'level', 'level_since')
  if level > 1 then alert({kind = 'resolved', target = target, id = id}) end
  if not degraded then return end
  redis.call('HDEL', key('degraded'), target)
  local held = cjson.decode(degraded).mode
  redis.call('PUBLISH', key('degraded'), cjson.encode({target = target, mode = held, active = false}))
  alert({kind = 'degraded_over', target = target, mode = held, id = id})
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
  local model = route.model
  if model == cjson.null then model = nil end
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
end
