-- Remember the event that was made of a matter's alerts, once it is on the broker.
-- ARGV: prefix, matter, life s, id, n, newest ms
redis.call('HSET', key('alerted', ARGV[2]), 'id', ARGV[4], 'n', ARGV[5], 'sent_since', ARGV[6],
  'sent_ms', now)
redis.call('EXPIRE', key('alerted', ARGV[2]), ms(ARGV[3]))
