#!lua flags=allow-oom
-- A clean stop.
-- KEYS: state, instances, leases, batches, left, unswept, versions, rewriting
-- ARGV: name, incarnation, notice channel, the command by which notices are published
local state, instances, leases, batches, left, unswept, versions, rewriting = unpack(KEYS)
local name, incarnation, channel, publish = unpack(ARGV)
if redis.call('HGET', instances, name) ~= incarnation then return 0 end
local time = redis.call('TIME')
local id = name .. '#' .. incarnation
redis.call('HDEL', instances, name)
redis.call('HDEL', versions, name)
redis.call('ZREM', leases, name)
redis.call('HDEL', batches, id)
redis.call('HDEL', rewriting, id)
redis.call('HSET', left, id, 's' .. (time[1] * 1000 + math.floor(time[2] / 1000)))
redis.call('HSET', unswept, id, 0)
redis.call(publish, channel, redis.call('HINCRBY', state, 'list', 1))
return 1
