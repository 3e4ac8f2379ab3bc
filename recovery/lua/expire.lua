-- Look at a lease that has run out and say what must follow.
-- ARGV: prefix, target, resend ms, queue wait ms, resumptions allowed, absent ms
-- answers {live|absent|resend|resume|unclaimed|dead, id, strategy}
-- absent: it has waited for that long, so give it up unless some worker that lives consumes its
-- queue; asked with 0 this is never answered, and nothing was changed by it;
-- resend: nobody has taken it yet, send it again; resume: its worker died, let another finish it;
-- unclaimed: nobody came in time; dead: workers died under it too often
-- include lease
local target, resend, queue_wait, allowed = ARGV[2], ms(ARGV[3]), ms(ARGV[4]), ms(ARGV[5])
local absent = ms(ARGV[6])

local lease = lease_of(target)
if not lease then
  redis.call('ZREM', key('leases'), target)
  return {'live', '', ''}
end
if lease.expires > now then return {'live', lease.id, ''} end

local record = key('recovery', lease.id)
local strategy = redis.call('HGET', record, 'strategy')
if not strategy then
  free_lease(target)
  return {'live', '', ''}
end

if lease.phase == 'queued' then
  if lease.give_up <= now then return {'unclaimed', lease.id, strategy} end
  local until_absent = lease.queued + absent
  if absent > 0 and lease.queued > 0 and until_absent <= now then return {'absent', lease.id, strategy} end
  local look = math.min(now + resend, lease.give_up)
  if until_absent > now then look = math.min(look, until_absent) end
  hold_lease(target, look)
  return {'resend', lease.id, strategy}
end

if redis.call('HINCRBY', record, 'resumed', 1) > allowed then return {'dead', lease.id, strategy} end
redis.call('HSET', record, 'state', 'queued')
-- Whoever resumes gets the strategy's whole time: noticing the death took most of it.
redis.call('HDEL', record, 'budget_ms')
redis.call('HSET', key('lease', target), 'phase', 'queued', 'queued', now,
  'give_up', now + queue_wait)
hold_lease(target, now + resend)
return {'resume', lease.id, strategy}
