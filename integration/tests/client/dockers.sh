# Reads lines `name<TAB>script`, runs each script, and prints a line of JSON for it: what it wrote, how it ended, and how the container
# `it` that it made is shown by `inspect`. Then everything that it may have made is removed.
#
# D: docker, or who is called in its words; IMAGE: an image with busybox, which is there; SHARED: a directory to bind.
set -eu
exec 3>&1 >&2
while IFS='	' read -r name script; do
	code=0
	out=$(eval "$script" </dev/null) || code=$?
	it=$($D inspect --type container it) || it='[null]'
	jq -cn --arg name "$name" --arg out "$out" --argjson code "$code" --argjson it "$it" \
		'{name: $name, out: $out, code: $code, it: $it[0]}' >&3
	$D rm -f -v it other </dev/null || true
	$D network rm n1 </dev/null || true
	$D volume rm -f v1 </dev/null || true
done
