# Runs a PostgreSQL of $1 in a new folder under $2 until standard input ends,
# and then removes all of it. Says the folder, and "ready" or what went wrong.
# $3 is "", or "archive" where it is to keep its log in the folder wal, or the
# folder of one that did, whose base backup it goes on from to the instant $4.
bin=$1
dir=$(mktemp -d "$2/pgtest.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
echo "$dir"

make() {
	case $3 in
	/*)
		cp -a "$3/base" "$dir/data" && touch "$dir/data/recovery.signal" || return
		set -- "
			archive_mode = off
			hot_standby = off
			restore_command = 'cp $3/wal/%f %p'
			recovery_target_time = '$4'
			recovery_target_action = promote"
		;;
	archive)
		mkdir "$dir/wal" || return
		set -- "
			archive_mode = on
			archive_command = 'cp %p $dir/wal/%f'"
		;;
	*) set -- "" ;;
	esac
	[ -d "$dir/data" ] || "$bin/initdb" -D "$dir/data" -U serval -A trust -E UTF8 --no-locale --no-sync || return
	cat >>"$dir/data/postgresql.conf" <<-END
		listen_addresses = ''
		unix_socket_directories = '$dir'
		port = 5432
		max_connections = 300
		shared_buffers = '32MB'
		dynamic_shared_memory_type = mmap
		fsync = off
		synchronous_commit = off
		full_page_writes = off
		autovacuum = off
		$1
	END
}
# One that goes on from a backup has started, for pg_ctl, long before it lets anybody in.
entered() {
	tries=0
	until grep -q '^ready' "$dir/data/postmaster.pid"; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] || return
		sleep 0.1
	done
}
{
	make "$@" && "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -t 60 -w start && entered
} >"$dir/out" 2>&1 </dev/null || {
	echo failed
	cat "$dir/out" "$dir/log"
	exit 1
}
echo ready
cat >/dev/null
"$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null
