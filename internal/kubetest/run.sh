# Runs "$@" until it ends, or standard input does, as it is when whoever started
# this is gone, however that came. Says the program's process id first.
exec 3<&0
"$@" </dev/null 3<&- >&2 &
child=$!
echo "$child"
{
	cat >/dev/null
	kill -9 "$child"
} <&3 >/dev/null 2>&1 &
watch=$!
exec 3<&- <&-
wait "$child"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
