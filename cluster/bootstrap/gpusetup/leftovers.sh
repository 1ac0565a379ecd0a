# Takes away what older installers left and what conflicts with the toolkit. Files are moved to KEEP, not deleted.
set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive
set_aside() {
	mkdir -p "$ROOT$KEEP"
	mv -f "$ROOT$1" "$ROOT$KEEP/$(echo "$1" | tr / _)"
	echo "moved $1 to $KEEP"
}
# "remove" and not "purge": daemon.json is a configuration file of nvidia-docker2 and stays.
[ -z "$PACKAGES" ] || apt-get -o DPkg::Lock::Timeout="$WAIT" remove -y $PACKAGES
for file in $FILES; do set_aside "$file"; done
