#!lua flags=allow-oom
-- Gives the lease of a logic module back; its token stays, so that the next one is larger.
-- KEYS: singletons
-- ARGV: logic, token
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored or string.match(stored, '^%d+') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' 0 ')
return 1
