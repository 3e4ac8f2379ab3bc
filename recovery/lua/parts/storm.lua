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
