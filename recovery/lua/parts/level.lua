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
