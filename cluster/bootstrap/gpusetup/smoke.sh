# Starts a container per GPU, the way tasks get theirs, and looks at what is visible inside.
set -u
id= ERRORS=$(mktemp)
trap 'rm -f "$ERRORS"; [ -z "$id" ] || docker rm -f "$id" >/dev/null 2>&1' EXIT
if ! docker image inspect "$IMAGE" >/dev/null 2>&1 && ! docker pull -q "$IMAGE" >/dev/null; then
	echo "image missing"
	exit 0
fi
look() { docker exec "$id" nvidia-smi -L 2>&1 | grep -o 'GPU-[0-9a-f-]*\|Failed to.*\|not found.*' | sed "s/^/$1 $uuid /"; }
for uuid in $UUIDS; do
	case $INJECTION in
	cdi) set -- --device "nvidia.com/gpu=$uuid" ;;
	*) set -- --gpus "\"device=$uuid\"" ;;
	esac
	id=$(docker run -d --rm --network none "$@" "$IMAGE" sleep 120 2>"$ERRORS") || { echo "start $uuid $(tail -n 1 "$ERRORS")"; continue; }
	look inside
	if [ "$RELOAD" = 1 ] && systemctl daemon-reload; then look reloaded; fi
	docker rm -f "$id" >/dev/null 2>&1
	id=
done
