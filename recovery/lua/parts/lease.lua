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
