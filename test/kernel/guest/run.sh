# Runs checks, one a line: a name, a limit in seconds, a command. What comes between the two marks of a check is its output.
cd "$(dirname "$0")" || exit 1
while read -r name limit command; do
	echo "@@ begin $name"
	timeout "$limit" sh -c "$command" </dev/null 2>&1
	echo "@@ end $name $?"
done <"$1"
