-- Set a target's degraded mode for as long as a recovery of it runs; one that is set stays.
-- ARGV: prefix, target, degraded mode (JSON), id, priority
-- include audit
-- include mode
enter_mode(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[4])
return 1
