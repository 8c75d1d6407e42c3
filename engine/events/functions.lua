#!lua name=orchestrator

-- An execution's key says which tick was written last and up to which sequence its facts are published: "7 41".
local function progress_of(key)
  local tick, sequence = string.match(redis.call('GET', key) or '0 0', '^(%d+) ?(%d*)$')
  return tonumber(tick or '0'), tonumber(sequence or '') or 0
end

-- Append packs of facts when they are the next ones of their execution; then nothing is missing before them and nothing
-- is there twice. Answers up to which sequence the execution is published now.
local function append_facts(stream, published, from, to, who, packs)
  if #packs == 0 or from ~= published + 1 then
    return published
  end
  for i = 1, #packs, 2 do
    redis.call('XADD', stream, '*', 'x', who[1], 'w', who[2], 't', who[3], 'n', packs[i], 'b', packs[i + 1])
  end
  return to
end

-- One tick's stream writes, once, and the facts that it committed. KEYS: the execution's key, partition stream, stream
-- of published facts, then a stream for each entry. ARGV: tick, seconds to keep the key, group, watchers' channel, their
-- nudge, first and last sequence of the facts, execution, workflow, trace, number of packs, number of acknowledgements,
-- then for each pack its first sequence and its body, the ids to acknowledge, and an entry's body for each remaining
-- key. Entries are written unless this tick or a later one was; acknowledging and nudging are always safe. Answers
-- whether entries were written, and up to which sequence the execution is published.
local function write_tick(keys, args)
  local tick, keep, group = tonumber(args[1]), tonumber(args[2]), args[3]
  local packs, acks = tonumber(args[11]), tonumber(args[12])
  local last_tick, published = progress_of(keys[1])
  local first_ack = 12 + 2 * packs
  local written = 0
  redis.call('PUBLISH', args[4], args[5])
  if tick > last_tick then
    for i = 4, #keys do
      redis.call('XADD', keys[i], '*', 'b', args[first_ack + acks + i - 3])
    end
    last_tick, written = tick, 1
  end
  local before = published
  published = append_facts(
    keys[3], published, tonumber(args[6]), tonumber(args[7]), {args[8], args[9], args[10]}, {unpack(args, 13, first_ack)})
  if written == 1 or published > before then
    redis.call('SET', keys[1], string.format('%.0f %.0f', last_tick, published), 'EX', keep)
  end
  for first = 1, acks, 500 do
    local last = math.min(first + 499, acks)
    redis.call('XACK', keys[2], group, unpack(args, first_ack + first, first_ack + last))
    redis.call('XDEL', keys[2], unpack(args, first_ack + first, first_ack + last))
  end
  return {written, published}
end

-- Facts that no tick has published, or whose publication got lost. KEYS: the execution's key, stream of published facts.
-- ARGV: seconds to keep the key, first and last sequence, execution, workflow, trace, then as for a tick its packs.
-- Answers up to which sequence the execution is published.
local function publish_facts(keys, args)
  local tick, published = progress_of(keys[1])
  local now = append_facts(
    keys[2], published, tonumber(args[2]), tonumber(args[3]), {args[4], args[5], args[6]}, {unpack(args, 7)})
  if now > published then
    redis.call('SET', keys[1], string.format('%.0f %.0f', tick, now), 'EX', tonumber(args[1]))
  end
  return now
end

-- An entry's id as numbers, and which of two is earlier.
local function parts(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence)
end

local function earlier(a, b)
  local a_ms, a_sequence = parts(a)
  local b_ms, b_sequence = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_sequence < b_sequence)
end

-- One workflow's facts, one entry each, out of the published packs. Views lie in the slot of the other keys; which they
-- are stands in the packs. Answers how many facts there were.
local function expand_pack(fields, args, oldest)
  local pack, facts = {}, 0
  for i = 1, #fields, 2 do
    pack[fields[i]] = fields[i + 1]
  end
  local view, source = args[1] .. pack.w, args[2] .. pack.w
  local parent = '00-' .. string.gsub(pack.t, '-', '') .. '-' .. string.sub(string.gsub(pack.x, '-', ''), 1, 16) .. '-01'
  for kind, at, epoch, payload in string.gmatch(pack.b, '([^\t\n]*)\t([^\t\n]*)\t([^\t\n]*)\t([^\n]*)\n') do
    local sequence = string.format('%.0f', tonumber(pack.n) + facts)
    redis.call(
      'XADD', view, 'MINID', '~', oldest, '*', 'event_type', kind, 'workflow_id', pack.w, 'execution_id', pack.x,
      'timestamp', at, 'payload', payload, 'trace_id', pack.t, 'sequence', sequence, 'epoch', epoch,
      'specversion', '1.0', 'id', pack.x .. ':' .. sequence, 'source', source, 'type', kind, 'time', at,
      'traceparent', parent)
    facts = facts + 1
  end
  redis.call('PEXPIRE', view, args[4])
  return facts
end

-- Bring the workflows' own streams up to what has been published. KEYS: for each partition its stream of published facts
-- and the key that says how far that has been read. ARGV: what the names of views begin with, what sources begin with,
-- facts of a partition after which the rest is left for another call, milliseconds that facts are kept, names of the
-- consumer groups that a stream gets. Answers how many facts there were, and how many partitions have more.
local function expand_facts(keys, args)
  local time, limit, total, more = redis.call('TIME'), tonumber(args[3]), 0, 0
  local oldest = string.format('%.0f', math.max(time[1] * 1000 - tonumber(args[4]), 0))
  for k = 1, #keys, 2 do
    local cursor, facts = redis.call('GET', keys[k + 1]), 0
    if not cursor and redis.call('EXISTS', keys[k]) == 1 then
      for i = 5, #args do
        redis.pcall('XGROUP', 'CREATE', keys[k], args[i], '0')
      end
      cursor = '0-0'
    end
    local entries, packs = {}, 0
    repeat
      entries = cursor and redis.call('XRANGE', keys[k], '(' .. cursor, '+', 'COUNT', 2) or {}
      for _, entry in ipairs(entries) do
        facts, packs, cursor = facts + expand_pack(entry[2], args, oldest), packs + 1, entry[1]
      end
    until #entries < 2 or facts >= limit
    if packs > 0 then
      redis.call('SET', keys[k + 1], cursor)
    end
    if #entries == 2 then
      more = more + 1
    end
    total = total + facts
  end
  return {total, more}
end

-- Forget published packs that the views have and that each group with consumers has acknowledged, and those that are too
-- old whatever they are. KEYS: as before. ARGV: milliseconds that facts are kept. Answers how many were forgotten, and
-- how many of them a group had not acknowledged.
local function trim_facts(keys, args)
  local time, forgotten, lost = redis.call('TIME'), 0, 0
  local oldest = string.format('%.0f-0', math.max(time[1] * 1000 - tonumber(args[1]), 0))
  local function after(id)
    local ms, sequence = parts(id)
    return string.format('%.0f-%.0f', ms, sequence + 1)
  end
  for k = 1, #keys, 2 do
    local expanded = redis.call('GET', keys[k + 1])
    if expanded and redis.call('EXISTS', keys[k]) == 1 then
      local keep = after(expanded)
      for _, fields in ipairs(redis.call('XINFO', 'GROUPS', keys[k])) do
        local group = {}
        for i = 1, #fields, 2 do
          group[fields[i]] = fields[i + 1]
        end
        if group.consumers > 0 then
          local wanted = after(group['last-delivered-id'])
          if group.pending > 0 then
            wanted = redis.call('XPENDING', keys[k], group.name)[2]
          end
          if earlier(wanted, keep) then
            keep = wanted
          end
        end
      end
      forgotten = forgotten + redis.call('XTRIM', keys[k], 'MINID', keep)
      lost = lost + redis.call('XTRIM', keys[k], 'MINID', oldest)
    end
  end
  return {forgotten + lost, lost}
end

-- Who reads which partition. One call says that the caller lives, extends or gives up what it holds, and takes what is
-- free, up to its share. Shares differ by one at most, and the larger ones are those of whoever holds most, so that
-- nothing moves once everybody has a share. Only what its owner has stopped reading is released.
-- KEYS: members, then owner and fence of each partition. ARGV: caller's id, milliseconds that a lease lasts, then what
-- the caller does with each partition: 'reads', 'stopped' (and nothing of it is under way) or ''.
-- Answers for each partition the fence under which the caller is to read it, 0 when it is not the caller's, or -1 when
-- it is to stop reading it; then how many it lacks. A partition that the caller did not read gets a new fence. Fences
-- follow the clock, so that they rise even when this server loses everything.
local function share_partitions(keys, args)
  local me, lease, members = args[1], tonumber(args[2]), keys[1]
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', members, now, me)
  redis.call('ZREMRANGEBYSCORE', members, '-inf', now - lease)
  redis.call('PEXPIRE', members, 2 * lease)

  local living, held, owners, count = redis.call('ZRANGE', members, 0, -1), {}, {}, (#keys - 1) / 2
  for _, member in ipairs(living) do
    held[member] = 0
  end
  for i = 1, count do
    owners[i] = redis.call('GET', keys[2 * i])
    if owners[i] and held[owners[i]] then
      held[owners[i]] = held[owners[i]] + 1
    end
  end
  table.sort(living, function(a, b)
    return held[a] > held[b] or (held[a] == held[b] and a < b)
  end)
  local share, larger = math.floor(count / #living), count % #living
  for rank = 1, larger do
    if living[rank] == me then
      share = share + 1
    end
  end

  local surplus, lacking, answers = math.max(held[me] - share, 0), math.max(share - held[me], 0), {}
  local function renew_fence(i)
    local last = tonumber(redis.call('GET', keys[2 * i + 1]) or '0')
    local fence = math.max(last + 1, now)
    redis.call('SET', keys[2 * i + 1], string.format('%.0f', fence))
    return fence
  end
  for i = 1, count do
    if owners[i] == me and args[2 + i] == 'stopped' and surplus > 0 then
      redis.call('DEL', keys[2 * i])
      owners[i], surplus, answers[i] = 'another', surplus - 1, 0
    end
  end
  for i = count, 1, -1 do
    if owners[i] == me then
      redis.call('PEXPIRE', keys[2 * i], lease)
      if surplus > 0 then
        surplus, answers[i] = surplus - 1, -1
      elseif args[2 + i] == 'reads' then
        answers[i] = tonumber(redis.call('GET', keys[2 * i + 1]) or '0')
      end
      if not answers[i] or answers[i] == 0 then
        answers[i] = renew_fence(i)
      end
    end
  end
  for i = 1, count do
    if not owners[i] and lacking > 0 then
      redis.call('SET', keys[2 * i], me, 'PX', lease)
      lacking, answers[i] = lacking - 1, renew_fence(i)
    end
    answers[i] = answers[i] or 0
  end
  answers[count + 1] = lacking
  return answers
end

-- The caller goes. KEYS: members, then the owner of each partition. ARGV: caller's id.
local function leave_partitions(keys, args)
  redis.call('ZREM', keys[1], args[1])
  local released = 0
  for i = 2, #keys do
    if redis.call('GET', keys[i]) == args[1] then
      released = released + redis.call('DEL', keys[i])
    end
  end
  return released
end

-- What another process read of a partition after this one had taken it over: written again as new entries, because by
-- now workflows may count an entry of that age as seen. Also forgets readers that are long gone. KEYS: owner (not in a
-- cluster, where it lies elsewhere and the caller has looked), stream.
-- ARGV: owner's id, group, entries at most, milliseconds after which a reader is forgotten. Answers how many moved.
local function requeue_strays(keys, args)
  if #keys > 1 and redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  local stream, group, moved = keys[#keys], args[2], 0
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

-- A dead letter: kept as long as it is young and the tenant's letters are neither too many nor too large. Each says how
-- many bytes were buried up to it, so the first and the last tell how many there are. KEYS: dead letters. ARGV: letters at
-- most, bytes at most, the oldest id to keep, seconds to keep the stream, this letter's bytes, names and values of its
-- fields. Answers how many were pushed out.
local function buried_bytes(entry)
  local total, size = 0, 0
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'total' then
      total = tonumber(entry[2][i + 1])
    elseif entry[2][i] == 'kept' then
      size = tonumber(entry[2][i + 1])
    end
  end
  return total, size
end

local function bury_letter(keys, args)
  local size, total, pushed = tonumber(args[5]), 0, 0
  local last = redis.call('XREVRANGE', keys[1], '+', '-', 'COUNT', 1)[1]
  if last then
    total = buried_bytes(last)
  end
  total = total + size
  local id = redis.call(
    'XADD', keys[1], '*', 'total', string.format('%.0f', total), 'kept', args[5], unpack(args, 6))
  redis.call('XTRIM', keys[1], 'MINID', args[3])
  pushed = redis.call('XTRIM', keys[1], 'MAXLEN', args[1])
  for _ = 1, 1000 do
    local first = redis.call('XRANGE', keys[1], '-', '+', 'COUNT', 1)[1]
    local before, kept = buried_bytes(first)
    if first[1] == id or total - before + kept <= tonumber(args[2]) then
      break
    end
    pushed = pushed + redis.call('XDEL', keys[1], first[1])
  end
  redis.call('EXPIRE', keys[1], tonumber(args[4]))
  return pushed
end

-- A dead letter becomes an entry again. KEYS: dead letters, partition stream. ARGV: the letter's id, then names and values
-- of the entry's fields. Answers whether it was still there.
local function replay_letter(keys, args)
  if redis.call('XDEL', keys[1], args[1]) == 0 then
    return 0
  end
  redis.call('XADD', keys[2], '*', unpack(args, 2))
  return 1
end

redis.register_function('orc_replay_letter', replay_letter)
redis.register_function('orc_bury_letter', bury_letter)
-- What frees memory runs also when there is none left: then agents' reports are refused, and these go on.
redis.register_function{function_name = 'orc_write_tick', callback = write_tick, flags = {'allow-oom'}}
redis.register_function('orc_publish_facts', publish_facts)
redis.register_function('orc_expand_facts', expand_facts)
redis.register_function{function_name = 'orc_trim_facts', callback = trim_facts, flags = {'allow-oom'}}
redis.register_function('orc_share_partitions', share_partitions)
redis.register_function('orc_leave_partitions', leave_partitions)
redis.register_function('orc_requeue_strays', requeue_strays)

-- Circuit breakers, one hash each: state, failures (that followed each other), threshold, timeout, due (when an open one
-- may be probed), opened_by, total; "f:<id>" failures that are counted, "p:<id>" until when a probe holds its place.
local COUNTED_MS, COUNTED_MAX, KEEP_MS = 600000, 64, 7200000
local WAITING_MAX = 20000

local function load_breaker(key)
  local fields, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  return {
    fields = fields, state = fields.state or 'closed', failures = tonumber(fields.failures or '0'),
    total = tonumber(fields.total or '0'), due = tonumber(fields.due or '0'),
    threshold = tonumber(fields.threshold or '0'), timeout = tonumber(fields.timeout or '0'),
    opened_by = fields.opened_by or '', counted = 0, dirty = false,
  }
end

local function forget(breaker, prefix, keeps)
  local kept = 0
  for name, value in pairs(breaker.fields) do
    if string.sub(name, 1, 2) == prefix then
      if keeps and keeps(tonumber(value)) then
        kept = kept + 1
      else
        breaker.fields[name], breaker.dirty = nil, true
      end
    end
  end
  return kept
end

local function open_breaker(breaker, rule)
  forget(breaker, 'p:')
  breaker.state, breaker.due = 'open', rule.now + rule.timeout
  breaker.threshold, breaker.timeout, breaker.opened_by = rule.threshold, rule.timeout, rule.who
end

local function call_failed(breaker, rule, id, counted_as)
  if breaker.state == 'half_open' and breaker.fields['p:' .. id] then
    breaker.failures = breaker.failures + 1
    open_breaker(breaker, rule)
  elseif breaker.state == 'closed' and not breaker.fields['f:' .. counted_as] then
    local counted = forget(breaker, 'f:', function(at) return at > rule.now - COUNTED_MS end)
    if counted >= COUNTED_MAX then
      forget(breaker, 'f:')
    end
    breaker.fields['f:' .. counted_as] = string.format('%.0f', rule.now)
    breaker.failures = breaker.failures + 1
    if breaker.failures >= rule.threshold then
      open_breaker(breaker, rule)
    end
  else
    return
  end
  breaker.counted, breaker.total, breaker.dirty = breaker.counted + 1, breaker.total + 1, true
end

local function call_worked(breaker, id)
  if breaker.state == 'half_open' and breaker.fields['p:' .. id] then
    forget(breaker, 'p:')
    breaker.state, breaker.failures, breaker.dirty = 'closed', 0, true
  elseif breaker.state == 'closed' and breaker.failures > 0 then
    breaker.failures, breaker.dirty = 0, true
  end
end

-- How many probes could start now; those that hold a place already and ask again do not need another one.
local function places(breaker, rule)
  if breaker.state == 'open' then
    return breaker.due <= rule.now and rule.probes or 0
  end
  return math.max(rule.probes - forget(breaker, 'p:', function(until_ms) return until_ms > rule.now end), 0)
end

local function admit_calls(breaker, rule, wanted, lease)
  if breaker.state == 'closed' or #wanted == 0 then
    return 1
  end
  local free, new = places(breaker, rule), 0
  for _, id in ipairs(wanted) do
    new = new + (breaker.fields['p:' .. id] and 0 or 1)
  end
  if new > free or (breaker.state == 'open' and free == 0) then
    return 0
  end
  breaker.state, breaker.dirty = 'half_open', true
  for _, id in ipairs(wanted) do
    breaker.fields['p:' .. id] = string.format('%.0f', rule.now + lease)
  end
  return 1
end

local function save_breaker(names, key, service, breaker)
  local fields = breaker.fields
  fields.state, fields.opened_by = breaker.state, breaker.opened_by
  for name, value in pairs({
    failures = breaker.failures, total = breaker.total, due = breaker.due, threshold = breaker.threshold,
    timeout = breaker.timeout,
  }) do
    fields[name] = string.format('%.0f', value)
  end
  local flat = {}
  for name, value in pairs(fields) do
    table.insert(flat, name)
    table.insert(flat, value)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(flat))
  redis.call('PEXPIRE', key, math.max(KEEP_MS, 10 * breaker.timeout))
  redis.call('SADD', names, service)
end

local function view_of(breaker, rule, admitted)
  local free, retry_in = 0, 0
  if breaker.state ~= 'closed' then
    free = places(breaker, rule)
    if breaker.state == 'open' then
      retry_in = math.max(breaker.due - rule.now, 0)
    elseif free == 0 then
      retry_in = math.min(math.max(math.floor(rule.timeout / 4), 250), 10000)
    end
  end
  return {
    breaker.state, breaker.failures, breaker.threshold, retry_in, free, breaker.opened_by, admitted, breaker.counted,
    breaker.total, rule.now,
  }
end

-- Who asks of a breaker that is not closed waits for it. Answers how many others wait for the one that this step closed.
local function note_waiting(key, who, was, breaker)
  if breaker.state == 'closed' then
    return was == 'closed' and 0 or redis.call('SCARD', key) - redis.call('SREM', key, who)
  end
  if who ~= '' and redis.call('SCARD', key) < WAITING_MAX then
    redis.call('SADD', key, who)
    redis.call('PEXPIRE', key, math.max(KEEP_MS, 10 * breaker.timeout))
  end
  return 0
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- What came of calls, and which calls are wanted, as one step. KEYS: the set of the breakers' names, then for each breaker
-- its hash and the set of those that wait for it. ARGV: threshold, timeout in ms, probes at once, who asks, who waits where
-- a breaker is not closed (may be empty); then for each breaker its name, the lease of its probes in ms, the number of
-- ends and of wanted calls, for each end its verdict, its call and as what it counts, and the wanted calls. Of one
-- breaker's wanted calls all are admitted or none.
local function consult_breakers(keys, args)
  local rule = {
    now = now_ms(), threshold = tonumber(args[1]), timeout = tonumber(args[2]), probes = tonumber(args[3]), who = args[4],
  }
  local waits, at, answers = args[5], 6, {}
  for n = 2, #keys, 2 do
    local service, lease = args[at], tonumber(args[at + 1])
    local ends, wants = tonumber(args[at + 2]), tonumber(args[at + 3])
    local breaker, wanted = load_breaker(keys[n]), {}
    local was = breaker.state
    at = at + 4
    for _ = 1, ends do
      local verdict, id, counted_as = args[at], args[at + 1], args[at + 2]
      if verdict == 'failed' then
        call_failed(breaker, rule, id, counted_as)
      elseif verdict == 'worked' then
        call_worked(breaker, id)
      elseif breaker.fields['p:' .. id] then
        breaker.fields['p:' .. id], breaker.dirty = nil, true
      end
      at = at + 3
    end
    for i = 1, wants do
      wanted[i] = args[at + i - 1]
    end
    at = at + wants
    local admitted = admit_calls(breaker, rule, wanted, lease)
    answers[n / 2] = view_of(breaker, rule, admitted)
    table.insert(answers[n / 2], note_waiting(keys[n + 1], waits, was, breaker))
    if breaker.dirty then
      save_breaker(keys[1], keys[n], service, breaker)
    end
  end
  return answers
end

redis.register_function('orc_consult_breakers', consult_breakers)

-- KEYS: the set of the breakers' names, the breaker's hash. ARGV: its name. Answers whether it was there, and the time.
local function reset_breaker(keys, args)
  local known = redis.call('DEL', keys[2]) + redis.call('SREM', keys[1], args[1])
  return {known, now_ms()}
end

redis.register_function('orc_reset_breaker', reset_breaker)
