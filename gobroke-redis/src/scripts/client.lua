-- The epoch, and a client's instance and record where there is one.
-- KEYS: state, places
-- ARGV: client, prefix of the keys of clients, how many parts the records of an instance are in
local epoch = redis.call('HGET', KEYS[1], 'epoch') or ''
local place = redis.call('HGET', KEYS[2], ARGV[1])
if not place then return {epoch} end
local id = string.match(place, '^%S+ (.*)$')
local a, b, c, d = struct.unpack('>I4I4I4I4', ARGV[1])
local part = (a + b + c + d) % ARGV[3]
local record = redis.call('HGET', ARGV[2] .. id .. ':' .. part, ARGV[1])
if not record then return {epoch} end
return {epoch, id, record}
