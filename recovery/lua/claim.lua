-- Take the lease of an admitted recovery: from now on this holder repairs, and nobody else.
-- ARGV: prefix, id, target, holder, ttl ms
-- answers {claimed|gone|busy|concluded, token, now}; the token fences whatever is written later
-- include audit
-- include lease
local id, target, holder, ttl = ARGV[2], ARGV[3], ARGV[4], ms(ARGV[5])
local record = key('recovery', id)

local state = redis.call('HMGET', record, 'state', 'dry_run')
if not state[1] then return {'gone', 0, now} end
if state[1] == 'concluded' then return {'concluded', 0, now} end
if state[2] then
  redis.call('HSET', record, 'state', 'running', 'holder', holder)
  redis.call('HSETNX', record, 'started_ms', now)
  redis.call('HSETNX', record, 'budget_ms', now)
  return {'claimed', 0, now}
end

local lease = lease_of(target)
if not lease or lease.id ~= id then return {'gone', 0, now} end
if lease.phase == 'running' and lease.expires > now then return {'busy', 0, now} end

local token = redis.call('HINCRBY', record, 'token', 1)
redis.call('HSET', record, 'state', 'running', 'holder', holder)
redis.call('HSETNX', record, 'started_ms', now)
-- The strategy's time is for working: what passed until a dead holder was noticed is not taken off.
if lease.phase == 'running' then redis.call('HSET', record, 'budget_ms', now) end
redis.call('HSETNX', record, 'budget_ms', now)
redis.call('HSET', key('lease', target), 'phase', 'running', 'holder', holder, 'token', token)
hold_lease(target, now + ttl)
publish({kind = 'running', id = id, target = target})
return {'claimed', token, now}
