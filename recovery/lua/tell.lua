-- Put an alert into the outbox; the same matter not again while it is quiet.
-- ARGV: prefix, alert, matter, quiet s
-- answers 1 where the alert was put there
-- include audit
if not redis.call('SET', key('told', ARGV[3]), now, 'NX', 'EX', ms(ARGV[4])) then return 0 end
alert(cjson.decode(ARGV[2]))
return 1
