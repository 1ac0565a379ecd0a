# Rewrites the CDI specification, and has it rewritten after every driver update from now on.
set -eu
if systemctl cat nvidia-cdi-refresh.service >/dev/null 2>&1; then
	systemctl enable nvidia-cdi-refresh.path nvidia-cdi-refresh.service
	systemctl restart nvidia-cdi-refresh.path
	systemctl restart nvidia-cdi-refresh.service
else
	mkdir -p "$ROOT/var/run/cdi"
	nvidia-ctk cdi generate --output="$ROOT/var/run/cdi/nvidia.yaml"
fi
