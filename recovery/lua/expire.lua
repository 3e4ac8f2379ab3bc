-- Look at a lease that has run out and say what must follow.
-- ARGV: prefix, target, resend ms, queue wait ms, resumptions allowed
-- answers {live|resend|resume|unclaimed|dead, id, strategy}
-- resend: nobody has taken it yet, send it again; resume: its worker died, let another finish it;
-- unclaimed: nobody came in time; dead: workers died under it too often
local target, resend, queue_wait, allowed = ARGV[2], ms(ARGV[3]), ms(ARGV[4]), ms(ARGV[5])

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
  hold_lease(target, math.min(now + resend, lease.give_up))
  return {'resend', lease.id, strategy}
end

if redis.call('HINCRBY', record, 'resumed', 1) > allowed then return {'dead', lease.id, strategy} end
redis.call('HSET', record, 'state', 'queued')
-- Whoever resumes gets the strategy's whole time: noticing the death took most of it.
redis.call('HDEL', record, 'budget_ms')
redis.call('HSET', key('lease', target), 'phase', 'queued', 'give_up', now + queue_wait)
hold_lease(target, now + resend)
return {'resume', lease.id, strategy}
