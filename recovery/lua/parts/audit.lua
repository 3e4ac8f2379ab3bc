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
