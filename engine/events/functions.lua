#!lua name=orchestrator

-- One tick's stream writes, once. KEYS: tick key, partition stream, then a stream for each entry.
-- ARGV: tick, seconds to keep the tick key, group, number of acknowledgements, the ids, then an entry's body for
-- each remaining key. Entries are written unless this tick or a later one was; acknowledging is always safe.
local function write_tick(keys, args)
  local tick, keep, group, acks = tonumber(args[1]), tonumber(args[2]), args[3], tonumber(args[4])
  local written = 0
  if tick > tonumber(redis.call('GET', keys[1]) or '0') then
    for i = 3, #keys do
      redis.call('XADD', keys[i], '*', 'b', args[4 + acks + i - 2])
    end
    redis.call('SET', keys[1], tick, 'EX', keep)
    written = 1
  end
  for first = 1, acks, 500 do
    local last = math.min(first + 499, acks)
    redis.call('XACK', keys[2], group, unpack(args, 4 + first, 4 + last))
    redis.call('XDEL', keys[2], unpack(args, 4 + first, 4 + last))
  end
  return written
end

-- A partition's lease. KEYS: owner, fence. ARGV: owner's id, milliseconds. Answers the fence, or 0 when another owns it.
local function own_partition(keys, args)
  local owner = redis.call('GET', keys[1])
  if owner == args[1] then
    redis.call('PEXPIRE', keys[1], args[2])
    return tonumber(redis.call('GET', keys[2]))
  elseif owner then
    return 0
  end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return redis.call('INCR', keys[2])
end

-- KEYS: owner. ARGV: owner's id.
local function release_partition(keys, args)
  if redis.call('GET', keys[1]) == args[1] then
    return redis.call('DEL', keys[1])
  end
  return 0
end

-- What another process read of a partition after this one had taken it over: written again as new entries, because by
-- now workflows may count an entry of that age as seen. Also forgets readers that are long gone. KEYS: owner, stream.
-- ARGV: owner's id, group, entries at most, milliseconds after which a reader is forgotten. Answers how many moved.
local function requeue_strays(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  local stream, group, moved = keys[2], args[2], 0
  for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local reader = {}
    for i = 1, #fields, 2 do
      reader[fields[i]] = fields[i + 1]
    end
    if reader.name ~= args[1] and reader.pending > 0 then
      for _, pending in ipairs(redis.call('XPENDING', stream, group, '-', '+', args[3], reader.name)) do
        local entry = redis.call('XRANGE', stream, pending[1], pending[1])[1]
        if entry then
          redis.call('XADD', stream, '*', unpack(entry[2]))
        end
        redis.call('XACK', stream, group, pending[1])
        redis.call('XDEL', stream, pending[1])
        moved = moved + 1
      end
    elseif reader.name ~= args[1] and reader.idle > tonumber(args[4]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, reader.name)
    end
  end
  return moved
end

redis.register_function('orc_write_tick', write_tick)
redis.register_function('orc_own_partition', own_partition)
redis.register_function('orc_release_partition', release_partition)
redis.register_function('orc_requeue_strays', requeue_strays)
