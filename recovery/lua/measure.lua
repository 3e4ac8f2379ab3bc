-- All that is measured and shown, at one moment.
-- ARGV: prefix, targets, scopes that may be disabled, queues of this Redis, fields of an observation
--       (each a JSON list)
-- answers {now, counters, degraded, pending, audit, targets, disabled, workers, queues}; its own
-- comments below say what each holds
local targets, scopes, queues = cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), cjson.decode(ARGV[4])
local seen = cjson.decode(ARGV[5])

-- As JSON, because a client reads one long reply much faster than many short ones: level, on trial,
-- cooldown ms, attempts in the hour, lease's id, phase and holder, last outcome, the newest step of
-- the lease's recovery, what the last probe found; false where there is none
local function state(target)
  local held = redis.call('HMGET', key('target', target), 'level', 'trial')
  local lease = redis.call('HMGET', key('lease', target), 'id', 'phase', 'holder')
  return cjson.encode({
    held[1], held[2], redis.call('PTTL', key('cooldown', target)),
    redis.call('ZCOUNT', key('attempts', target), now - HOUR, '+inf'),
    lease[1], lease[2], lease[3], redis.call('LINDEX', key('outcomes', target), 0),
    lease[1] and redis.call('LINDEX', key('steps', lease[1]), -1),
    redis.call('HMGET', key('observation', target), unpack(seen)),
  })
end

-- {what was said, ms left}
local function off(scope)
  local said = redis.call('GET', key('disabled', scope))
  return {said, said and redis.call('PTTL', key('disabled', scope)) or 0}
end

-- {messages, when the oldest was sent}; what is no list is somebody else's
local function waiting(queue)
  if redis.call('TYPE', queue).ok ~= 'list' then return {0, ''} end
  local oldest = redis.call('LINDEX', queue, -1) or ''
  return {redis.call('LLEN', queue), string.match(oldest, '"recovery_sent_ms": ?(%d+)') or ''}
end

local function each(names, read)
  local found = {}
  for i, name in ipairs(names) do found[i] = read(name) end
  return found
end

-- {entries that are in no sealed file yet, the oldest one's id}
local oldest = redis.call('XRANGE', key('audit'), '-', '+', 'COUNT', 1)
local audited = {redis.call('XLEN', key('audit')), oldest[1] and oldest[1][1] or ''}

return {
  now, redis.call('HGETALL', key('counters')), redis.call('HGETALL', key('degraded')),
  redis.call('HGETALL', key('pending')), audited, each(targets, state), each(scopes, off),
  each(redis.call('ZRANGE', key('workers'), 0, -1),
    function(node) return redis.call('HGETALL', key('worker', node)) end),
  each(queues, waiting),
}
