-- End a recovery in one write: audit entry, counters, cooldown or clear, degraded mode, level,
-- lease. Said twice it is done once.
-- ARGV: prefix, id, target, component, strategy, token, result, entry, outcome, past, duration s,
--       cooldown ms, degraded mode (JSON), failures for level 3, why a person, record ttl s, priority,
--       buckets (comma separated, seconds)
-- degraded mode: {mode, available, unavailable}; '' where the policy describes none. It is joined
-- as text, because cjson would store an empty list as an object
-- why a person: what calls one at once where it failed; '' where nothing does
-- entry: '' where the policy wants no audit trail
-- token: the lease's fence; '' where no lease is held (dry run, denied, expired,
--        withdrawn), 'stale' where
-- the lease has run out and its holder is taken for dead, 'adopted' where a host ran it alone
-- answers {concluded|already|lost, level, audit id}
-- include audit
-- include histogram
-- include level
-- include mode
-- include storm
-- include lease
local id, target, component, strategy, token, result =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local entry, outcome, past, duration = ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local cooldown, mode, level_3_failures = ms(ARGV[12]), ARGV[13], ms(ARGV[14])
local why_person, record_ttl, severity, buckets = ARGV[15], ms(ARGV[16]), ARGV[17], ARGV[18]
local record, state_of_target = key('recovery', id), key('target', target)

local state = redis.call('HGET', record, 'state')
local is_rehearsal = redis.call('ZREM', key('rehearsals'), id) == 1
if not state or state == 'concluded' then return {'already', 0, ''} end
local happened = ms(redis.call('HGET', record, 'happened_ms'))
if happened == 0 then happened = now end
if token == 'adopted' then
  if state ~= 'adopted' then return {'lost', 0, ''} end
elseif token ~= '' then
  local lease = lease_of(target)
  if not lease or lease.id ~= id then return {'lost', 0, ''} end
  if token == 'stale' then
    if lease.expires > now then return {'lost', 0, ''} end
  elseif lease.token ~= token then
    return {'lost', 0, ''}
  end
  free_lease(target)
elseif state ~= 'awaiting_approval' and not redis.call('HGET', record, 'dry_run') then
  return {'lost', 0, ''}
end

local level = ms(redis.call('HGET', state_of_target, 'level'))

local function degrade()
  enter_mode(target, mode, id, severity)
end

local function mend()
  restore(target, id, level)
  redis.call('ZREM', key('failing'), target)
  if redis.call('HEXISTS', state_of_target, 'rerouted') == 0 then level = 1 end
end

-- What a host did alone may be older than what is known of the target by now.
local newest = redis.call('LINDEX', key('outcomes', target), 0)
local is_news = not newest or ms(cjson.decode(newest).at_ms) <= happened

if not is_news then
  level = math.max(level, 1)
elseif result == 'recovered' then
  redis.call('DEL', key('cooldown', target))
  if redis.call('HEXISTS', state_of_target, 'trial') == 1 then
    redis.call('HSET', state_of_target, 'healthy_from', now)
  end
  mend()
elseif result == 'not_needed' then
  redis.call('ZREM', key('attempts', target), id)
  mend()
elseif result == 'rerouted' then
  redis.call('HSET', state_of_target, 'rerouted', strategy)
  degrade()
  level = raise_level(target, 2, strategy .. ' leads around it')
elseif result == 'failed' then
  redis.call('ZADD', key('failures', target), happened, id)
  redis.call('ZREMRANGEBYSCORE', key('failures', target), '-inf', now - HOUR)
  redis.call('PEXPIRE', key('failures', target), HOUR)
  redis.call('SET', key('cooldown', target), id, 'PX', math.max(cooldown - (now - happened), 1))
  alert({kind = 'cooldown', target = target, id = id, seconds = cooldown / 1000, severity = severity})
  redis.call('HSET', state_of_target, 'trial', 1)
  redis.call('HDEL', state_of_target, 'healthy_from')
  degrade()
  note_failing(target, now + cooldown)
  local failures = failures_in_hour(target)
  if why_person ~= '' then
    level = raise_level(target, 3, why_person)
  elseif failures >= level_3_failures then
    level = raise_level(target, 3, failures .. ' failures in an hour')
  else
    level = raise_level(target, 2, strategy .. ' failed')
  end
elseif is_rehearsal then
  level = math.max(level, 1)
elseif result == 'unclaimed' then
  redis.call('ZREM', key('attempts', target), id)
  degrade()
  level = raise_level(target, 2, cjson.decode(outcome).detail)
elseif result == 'denied' or result == 'expired' or result == 'withdrawn' then
  redis.call('HDEL', key('pending'), id)
  redis.call('HDEL', key('pending:same'), target .. '|' .. strategy)
end

-- What is observed from now on may ask for the next one; not at once where a person said no to
-- what fails now.
local seen = key('observation', target)
redis.call('HDEL', seen, 'event_ms', 'retry_ms', 'refused', 'refused_why', 'refused_failure')
local function wait_for(pause, why, detail)
  if redis.call('EXISTS', seen) == 0 then return end
  redis.call('HSET', seen, 'retry_ms', now + pause, 'refused', why, 'refused_why', detail)
end
if result == 'denied' and redis.call('HGET', seen, 'phase') == 'failing' then
  wait_for(HOUR, 'denied', 'a person denied it')
  redis.call('HSET', seen, 'refused_failure', redis.call('HGET', seen, 'failure_type') or '')
end
-- Nobody is there: asking with every look would only fill the trail.
if result == 'unclaimed' and not is_rehearsal then wait_for(UNHELPED, 'unclaimed', cjson.decode(outcome).detail) end
-- A mode that was to hold while this ran ends with it, however it ended, unless it failed.
if result ~= 'failed' then
  local held = redis.call('HGET', key('degraded'), target)
  if held and cjson.decode(held).while_runs == id then end_mode(target, id) end
end

redis.call('ZREMRANGEBYSCORE', key('attempts', target), '-inf', now - HOUR)
redis.call('PEXPIRE', key('attempts', target), HOUR)

local counter = component .. '|' .. strategy
redis.call('HINCRBY', key('counters'), 'attempts|' .. counter .. '|' .. result, 1)
if result == 'recovered' then
  -- From the event to the proof, whatever it waited for.
  local received = ms(redis.call('HGET', record, 'received_ms'))
  measure(buckets, 'recover_bucket', 'recover_seconds', component, (math.max(happened - received, 0)) / 1000)
end
if result == 'recovered' or result == 'rerouted' or result == 'failed' then
  measure(buckets, 'bucket', 'seconds', counter, duration)
  redis.call('LPUSH', key('outcomes', target), string.sub(past, 1, -2) .. ',"at_ms":' .. string.format('%.0f', happened) .. '}')
  redis.call('LTRIM', key('outcomes', target), 0, 31)
  redis.call('PEXPIRE', key('outcomes', target), 24 * HOUR)
end

is_audited = entry ~= ''
local entry_id = audit(string.sub(entry, 1, -2) .. ',"level":' .. math.max(level, 1) .. '}', happened)
redis.call('HSET', record, 'state', 'concluded', 'outcome', outcome, 'concluded_ms', now,
  'level', math.max(level, 1), 'audit_id', entry_id)
redis.call('EXPIRE', record, record_ttl)
-- Whoever asked for a rehearsal follows it, and hears that nobody took it.
if result ~= 'unclaimed' or not is_rehearsal then
  alert({kind = 'recovery', id = id, target = target, strategy = strategy, result = result, severity = severity})
end
publish({kind = 'concluded', id = id, target = target, result = result})
return {'concluded', math.max(level, 1), entry_id}
