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
