-- The gate: may this recovery start now? One round trip, atomic.
-- ARGV: prefix, id, target, event, and in one argument everything short, because each further
--       argument costs the caller as much as a command here: mode, force (0|1), strategy, and the
--       policy's numbers:
--       max attempts, cooldown ms, probation ms, resend ms, queue wait ms, approval ms,
--       record ttl s, failures for level 3, is audited (0|1), size of a storm (0: never), its calm ms,
--       how long this event's word is believed ms (0: not at all), is a foundation of others (0|1),
--       and the targets that this one stands on, the nearest first
-- mode: admit (start), hold (wait for an approval), resume (an approved one, at last), rehearse,
--       undo (bring back what a recovery removed: no attempt)
-- answers 'admitted', or {verdict, reason, retry_after ms, detail}
local id, target, event = ARGV[2], ARGV[3], ARGV[4]
local component = string.match(target, '^[^/]+')
local mode, forced, strategy, max_attempts, cooldown, probation, resend, queue_wait, approval_life,
  record_ttl, level_3_failures, audited, storm_size, calm, believed, is_foundation, roots =
  string.match(ARGV[5], '(%S+) (%d) (%S*) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)'
    .. ' (%d+) (%d+) (%d+)(.*)')
local force = forced == '1'
-- What only a refusal, a hold or a storm needs is defined where it is needed: most events need none.
-- Whoever stands on others is probed again right after they are repaired; this is for the rest.
local ROOT_PAUSE = 10000
local record = key('recovery', id)

local function start_record(state)
  redis.call('HSET', record, 'event', event, 'strategy', strategy,
    'state', state, 'received_ms', now)
end

local function refuse(reason, retry_after, detail)
  if mode == 'resume' then return {'refused', reason, retry_after, detail} end
  -- include audit
  -- include level
  -- include refusal
  is_audited = audited == '1'
  if reason == 'limit' then
    raise_level(target, 3, 'the limit of recoveries an hour is used up')
  elseif reason == 'cooldown' and failures_in_hour(target) >= math.min(2, ms(level_3_failures)) then
    raise_level(target, 3, 'it failed again and the cooldown is still active')
  end
  note_refusal(id, target, component, strategy, reason, retry_after, detail)
  return {'refused', reason, retry_after, detail}
end

local known = redis.call('HGET', record, 'state')
if mode == 'resume' then
  if known ~= 'awaiting_approval' then return {'duplicate', known or '', 0, ''} end
elseif known then
  return {'duplicate', known, 0, redis.call('HGET', record, 'strategy')}
end

if mode == 'rehearse' then
  start_record('queued')
  redis.call('HSET', record, 'dry_run', 1)
  redis.call('EXPIRE', record, record_ttl)
  redis.call('ZADD', key('rehearsals'), now, id)
  return 'admitted'
end

-- One command for all keys: on the way in every command costs.
local scopes = {'all', component, target}
local held = redis.call('MGET', key('disabled', 'all'), key('disabled', component),
  key('disabled', target), key('cooldown', target), key('flapping', target), key('storm'),
  key('storm:since'))

-- A probe has said so already; other sources are counted here.
if believed ~= '0' then
  -- include audit
  -- include storm
  is_audited = audited == '1'
  note_failing(target, now + ms(believed))
  -- Too few targets for a storm, and none that is still to be ended: nothing to judge.
  if ms(storm_size) > 0 or (held[7] and not held[6]) then
    judge_storm(ms(storm_size), ms(calm))
    held[6] = redis.call('GET', key('storm'))
  end
end

for i, scope in ipairs(scopes) do
  local why = held[i]
  if why then
    local left = redis.call('PTTL', key('disabled', scope))
    return refuse('disabled', math.max(left, 0), scope .. ': ' .. why)
  end
end

local lease = redis.call('HMGET', key('lease', target), 'id', 'expires')
if lease[1] then
  local left = ms(lease[2]) - now
  if left <= 0 then return {'stale', lease[1], 0, ''} end
  return refuse('busy', left, 'recovery ' .. lease[1] .. ' is under way')
end

if not force then
  for root in string.gmatch(roots, '%S+') do
    local failing_until = ms(redis.call('ZSCORE', key('failing'), root))
    if failing_until > now then
      return refuse('dependency', ROOT_PAUSE, 'it stands on ' .. root .. ', which fails')
    elseif redis.call('EXISTS', key('lease', root)) == 1 then
      return refuse('dependency', ROOT_PAUSE, 'it stands on ' .. root .. ', which is being repaired')
    end
  end
  if held[6] and is_foundation == '0' then
    local left = math.max(redis.call('PTTL', key('storm')), 0)
    return refuse('storm', left, held[6] .. ' targets fail at once: only what others stand on is repaired')
  end
  if held[5] then
    local left = math.max(redis.call('PTTL', key('flapping', target)), 0)
    return refuse('flapping', left, 'it changed ' .. held[5] .. ' times between healthy and failing')
  end
  if held[4] then
    local left = math.max(redis.call('PTTL', key('cooldown', target)), 0)
    return refuse('cooldown', left, 'cooling down after a failed recovery')
  end

  local attempts = key('attempts', target)
  local used = redis.call('ZCOUNT', attempts, now - HOUR, '+inf')
  if used >= ms(max_attempts) then
    local nth = redis.call('ZRANGE', attempts, -max_attempts, -max_attempts, 'WITHSCORES')
    return refuse('limit', ms(nth[2]) + HOUR - now, used .. ' recoveries in the last hour')
  end

  -- After a failure one trial at a time, until health has lasted.
  local state = redis.call('HMGET', key('target', target), 'trial', 'healthy_from', 'rerouted')
  if state[3] == strategy then
    return refuse('rerouted', 0, 'people are served past it already, until it is proven healthy')
  end
  if state[1] then
    local healthy_from = ms(state[2])
    if healthy_from > 0 and now - healthy_from >= ms(probation) then
      redis.call('HDEL', key('target', target), 'trial', 'healthy_from')
    elseif healthy_from > 0 then
      local last = redis.call('ZRANGE', attempts, -1, -1, 'WITHSCORES')
      local next_trial = ms(last[2]) + cooldown
      if now < next_trial then
        return refuse('probation', next_trial - now, 'failed recently and is not yet proven stable')
      end
    end
  end
end

if mode == 'hold' then
  local same = target .. '|' .. strategy
  local waiting = redis.call('HGET', key('pending:same'), same)
  if waiting then return refuse('awaiting_approval', 0, 'recovery ' .. waiting .. ' already waits for approval') end
  -- include audit
  start_record('awaiting_approval')
  redis.call('HSET', key('pending:same'), same, id)
  redis.call('HSET', key('pending'), id, cjson.encode({target = target, strategy = strategy,
    since = now, expires = now + approval_life}))
  alert({kind = 'approval', id = id, target = target, strategy = strategy})
  publish({kind = 'awaiting_approval', id = id, target = target})
  return {'awaiting_approval', '', 0, ''}
end

if mode ~= 'undo' then redis.call('ZADD', key('attempts', target), now, id) end
if mode == 'resume' then
  redis.call('HDEL', key('pending'), id)
  redis.call('HDEL', key('pending:same'), target .. '|' .. strategy)
  redis.call('HSET', record, 'state', 'queued', 'admitted_ms', now)
else
  start_record('queued')
end
redis.call('HSET', key('lease', target), 'id', id, 'phase', 'queued', 'queued', now,
  'give_up', now + queue_wait, 'expires', now + resend)
redis.call('ZADD', key('leases'), now + resend, target)
return 'admitted'
