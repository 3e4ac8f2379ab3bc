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
