-- Merge changes into the route of a target, store it and publish it, all or nothing.
-- ARGV: prefix, target, changes (JSON object), recovery id, lease's fence
-- fence: '' where no lease is asked for
-- answers {'changed'|'same', route}, or {'lost', ''}
-- include audit
-- include route
-- include lease
local target, changes, id, fence = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if fence ~= '' then
  local lease = lease_of(target)
  if not lease or lease.token ~= fence then return {'lost', ''} end
end

local stored = redis.call('HGET', key('routes'), target)
-- One that somebody damaged is made anew.
local readable, route = pcall(cjson.decode, stored or '{}')
if not readable or type(route) ~= 'table' then route, stored = {}, false end

-- Tables are compared by what they say: the order of their fields is nobody's.
local function differs(one, other)
  if type(one) ~= 'table' or type(other) ~= 'table' then return one ~= other end
  for field, value in pairs(one) do
    if differs(value, other[field]) then return true end
  end
  for field in pairs(other) do
    if one[field] == nil then return true end
  end
  return false
end

local road, model = route.road, route.model
local is_same = stored
for name, value in pairs(cjson.decode(changes)) do
  if differs(value, route[name]) then is_same = false end
  route[name] = value
end
if is_same then return {'same', stored} end

if route.road ~= road or route.model ~= model or not route.since then
  route.since = now
  route.recovery_id = id ~= '' and id or cjson.null
  if road then tell_of_route(target, route, id) end
  if road == 'direct' and route.road ~= road then
    redis.call('HDEL', key('target', target), 'rerouted')
  end
end
return {'changed', set_route(target, route)}
