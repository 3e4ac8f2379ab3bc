-- One look at where a target's applications could be led back to; leads them there once it has been
-- healthy for long enough. What comes and goes has to be healthy for longer each time.
-- ARGV: prefix, target, generation of the route that was looked at, road, model, is healthy (0|1),
--       healthy for ms, longest pause between looks ms, what was seen, is audited (0|1)
-- answers {changed|busy|disabled|unhealthy|waiting|led_back, ms that are left, route}
-- include audit
-- include mode
-- include route
local target, generation, road, model = ARGV[2], ms(ARGV[3]), ARGV[4], ARGV[5]
local healthy, needed, longest_pause, seen = ARGV[6] == '1', ms(ARGV[7]), ms(ARGV[8]), ARGV[9]
is_audited = ARGV[10] == '1'
local MOST_PATIENCE = 16
local SOON = 10

local stored = redis.call('HGET', key('routes'), target)
local route = stored and cjson.decode(stored)
if not route or ms(route.generation) ~= generation then return {'changed', 0, ''} end
-- Whoever repairs it decides where its applications go.
if redis.call('EXISTS', key('lease', target)) == 1 then return {'busy', 0, ''} end
local component = string.match(target, '^[^/]+')
if redis.call('EXISTS', key('disabled', 'all'), key('disabled', component), key('disabled', target)) > 0 then
  return {'disabled', 0, ''}
end

local looks, state_of_target = key('returning', target), key('target', target)
local held = redis.call('HMGET', looks, 'healthy_from', 'last', 'goal', 'patience', 'returned', 'departed')
local healthy_from, last, goal = ms(held[1]), ms(held[2]), road .. '|' .. model
local patience, returned, departed = math.max(ms(held[4]), 1), ms(held[5]), ms(held[6])
redis.call('PEXPIRE', looks, 24 * HOUR)

if departed ~= ms(route.since) then
  local was_short = returned > 0 and ms(route.since) - returned < SOON * needed
  patience = was_short and math.min(2 * patience, MOST_PATIENCE) or 1
  healthy_from = 0
  redis.call('HSET', looks, 'departed', string.format('%.0f', ms(route.since)), 'patience', patience)
end
if not healthy then
  redis.call('HDEL', looks, 'healthy_from', 'goal')
  return {'unhealthy', 0, ''}
end
if healthy_from == 0 or held[3] ~= goal or now - last > longest_pause then healthy_from = now end
redis.call('HSET', looks, 'healthy_from', healthy_from, 'last', now, 'goal', goal)
redis.call('PEXPIRE', looks, 24 * HOUR)
local left = needed * patience - (now - healthy_from)
if left > 0 then return {'waiting', left, ''} end

local was_direct, id = route.road == 'direct', route.recovery_id
if type(id) ~= 'string' then id = '' end
route.road, route.since, route.recovery_id = road, now, cjson.null
route.model = model ~= '' and model or cjson.null
redis.call('HSET', looks, 'returned', now)
redis.call('HDEL', looks, 'healthy_from', 'goal')
if was_direct then
  redis.call('HDEL', state_of_target, 'rerouted')
  redis.call('DEL', key('cooldown', target))
  restore(target, id, ms(redis.call('HGET', state_of_target, 'level')))
end
local text = set_route(target, route)
tell_of_route(target, route, id)
audit(cjson.encode({id = id, target = target, result = 'led_back',
  detail = 'healthy for ' .. math.floor((now - healthy_from) / 1000) .. ' s: ' .. seen}))
publish({kind = 'led_back', target = target})
return {'led_back', 0, text}
