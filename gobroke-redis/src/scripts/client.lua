-- A client's instance and record.
-- KEYS: places
-- ARGV: client, prefix of the keys of clients
local place = redis.call('HGET', KEYS[1], ARGV[1])
if not place then return {} end
local id = string.match(place, '^%S+ (.*)$')
local record = redis.call('HGET', ARGV[2] .. id, ARGV[1])
if not record then return {} end
return {id, record}
