-- Write progress of a running recovery and renew its lease, only while it is still ours.
-- ARGV: prefix, id, target, token, ttl ms, phase, then field/value pairs for the record
-- answers 1, or 0 where the lease is somebody else's by now
-- include lease
local id, target, token, ttl, phase = ARGV[2], ARGV[3], ARGV[4], ms(ARGV[5]), ARGV[6]

local lease = lease_of(target)
if not lease or lease.id ~= id or lease.token ~= token then return 0 end
if phase ~= '' and phase ~= lease.phase then
  redis.call('HSET', key('lease', target), 'phase', phase)
  redis.call('HSET', key('recovery', id), 'state', phase)
end
for i = 7, #ARGV, 2 do
  redis.call('HSET', key('recovery', id), ARGV[i], ARGV[i + 1])
end
hold_lease(target, now + ttl)
return 1
