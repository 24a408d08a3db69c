"""The fake's shell says what bash says: every script here runs in both."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloche.vm.fake import FakeProvider
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/usr/bin:/bin"

SCRIPTS = r"""
echo a b   c
echo "a  b" 'c  d' e\ f
echo -n x; echo y
echo -e 'a\tb\n'
echo -n -e 'x\x41\0101'
echo - -- -z
printf '%s\n' a b c
printf '%s-%s\n' a b c
printf '%d %5d|%-5s|%x\n' 7 42 ab 255
printf 'no newline'
printf '%%%s\n' z
printf '%b' 'a\nb\n'
printf '[%s]'; printf '\101\n'
x=1; echo $x "$x" '$x' ${x}y
x=; echo "[${x:-def}] [${x-def}] [${y-def}] [${x:+alt}] [${x+alt}] [${y+alt}]"
echo ${z:=set} $z ${z=other}
echo "${u:?is unset}"; echo not here
echo "${u-"a  b"}" ${u-a  b} "${u:-$HOME/x}" | wc -w
true && echo yes || echo no
false && echo yes || echo no
false || echo a && echo b
! true; echo $?
! false; echo $?
true; echo $?; false; echo $?
(exit 3); echo $?
(x=1; cd /tmp); echo "[$x]"
{ echo a; echo b; } | cat
echo one | cat | cat
echo a; echo b >&2
echo hidden >/dev/null; echo shown
echo err 2>/dev/null >&2; echo ok
echo both &>f; cat f; nosuch &>>f; wc -l <f
for i in 1 2 "3 4"; do echo "<$i>"; done
for i in; do echo never; done; echo end
if true; then echo t; else echo f; fi
if false; then echo t; elif true; then echo e; else echo f; fi
if false; then echo t; fi; echo $?
i=; while [ "$i" != xxx ]; do i=${i}x; echo $i; done
i=; until [ "$i" = xx ]; do i=${i}x; echo $i; done
echo $(echo a; echo b)
echo "$(echo a; echo b)"
x=$(false); echo $?
x=$(echo "  sp  "); echo "[$x]" [$x]
echo "$(echo "nested $(echo deep)")"
echo a$(printf ' b ')c "a$(printf ' b ')c"
cat <<EOF
a $HOME \$x
EOF
cat <<'END'
literal $x `y` \
END
x=v; cat <<EOF; echo after
value $x and ${x}y and \$x "quoted" 'it'
EOF
cat <<-END
	tabs
	gone
	END
x=$(cat <<EOF
inside
EOF
); echo "got $x"
cat <<A; cat <<B
one
A
two
B
echo a > f; echo b >> f; cat f; cat < f
echo x > f; cat f f; rm f; [ -e f ] || echo gone
mkdir -p d/e; ls d; rm -r d; ls d 2>/dev/null; echo $?
mkdir d; mkdir d 2>/dev/null; echo $?; rm d 2>/dev/null; echo $?; rm -f nothing; echo $?
touch a.txt b.txt c.md .h; echo *.txt; echo *.nothing; echo "*"; echo *; echo .h*
touch 'a b'; for f in *; do echo "<$f>"; done; rm a*; ls
mkdir d; touch d/x d/y; echo d/*; echo */x; echo d/[!x]
[ a = a ]; echo $?; [ a != a ]; echo $?; [ 3 -gt 2 ]; echo $?
[ -z "" ] && [ -n x ] && [ ! -f nofile ] && echo ok
test -d / && test ! -e /no/such/folder && echo ok
[ x ]; echo $?; [ ]; echo $?; [ "" ]; echo $?; [ ! "" ]; echo $?; [ ! ]; echo $?
[ a = 2>/dev/null; echo $?; [ 1 -eq x ] 2>/dev/null; echo $?
set -e; echo a; false; echo b
set -e; false || true; echo a; ! true; echo b; if false; then :; fi; echo c
set -e; false && true; echo a
set -e; (false; echo in); echo out
set -e; x=$(false); echo no
set -e; echo $(false) yes
set -e; { false; echo a; } || echo b
set -e; while false; do :; done; echo a
set -e; true | false; echo a
set -e; false | true; echo a
set -e; set +e; false; echo a
set -eo pipefail; false | true; echo a
set -o pipefail; false | true; echo $?
false | true; echo $?
set -u; echo a; echo $nothing; echo b
set -u; echo ${nothing:-fine}
set -- a "b c" d; echo $# $1 "$2"; for p in "$@"; do echo "<$p>"; done; shift; echo $1
set -- a b; for p; do echo "$p"; done; echo "$*"; echo "x$@y"
exit 7
exit 300
echo a; exit; echo b
false; exit
sh -c 'echo $0 $1' name arg
bash -c 'exit 4'; echo $?
bash -ec 'false; echo no'; echo $?
echo 'echo from stdin' | sh
nosuchprogram 2>/dev/null; echo $?
./nosuch 2>/dev/null; echo $?
touch data; ./data 2>/dev/null; echo $?
printf '#!/bin/sh\necho script $1\n' > s; chmod +x s; ./s arg; chmod 644 s; ./s 2>/dev/null; echo $?
mkdir b; printf '#!/bin/sh -e\nfalse; echo no\n' > b/tool; chmod 755 b/tool; PATH=$PWD/b:$PATH; tool; echo $?
export A=1; B=2; sh -c 'echo "$A[$B]"'; B=3 sh -c 'echo $B'; echo $B
export X; X=5; sh -c 'echo $X'; unset X; sh -c 'echo "[$X]"'
export 1x=2 2>/dev/null; echo $?
cd /tmp && pwd; cd /; echo $PWD
cd /no/such/folder 2>/dev/null; echo $?
cd; [ "$PWD" = "$HOME" ] && echo home
trap 'echo bye' EXIT; echo hi
trap 'echo bye $?' EXIT; exit 3
trap 'echo bye; exit 5' EXIT; true
trap 'echo usr' USR1; kill -USR1 $$; echo after
trap '' TERM; kill $$; echo survived
trap 'echo no' TERM; trap - TERM; kill $$; echo no
kill -9 $$; echo no
kill -TERM $$; echo no
kill -s TERM $$; echo no
sleep 0 & wait; echo done
(exit 3) & wait $!; echo $?
{ echo bg; } & wait
sleep 1000 & kill $!; wait $! 2>/dev/null; echo $?
eval 'x=3; echo $x'; eval "echo \$x"
echo 'y=5; echo sourced' > s; . ./s; echo $y; source ./s
exec echo replaced; echo no
echo "a b c" | { read x y; echo "$y|$x"; }
printf 'l1\nl2\n' | while read l; do echo "<$l>"; done
read x < /dev/null; echo $? "[$x]"
echo a#b; echo a # comment
echo a \
  b
x="a b"; echo $x "$x"; y=$x; echo "$y"
x='*'; echo "$x"
a=1 b=2; echo $a$b
echo "$?"; false; echo "$?"
command -v nosuchprogram; echo $?
command echo via
true | false; echo $?
echo x | (read a; echo "got $a")
cat nofile 2>/dev/null; echo $?
echo a >nodir/f; echo $?
printf 'a\nb\nc\n' | head -n 2
printf 'abcdef' | head -c 3
printf 'a b\nc\n' | wc -w
ln -s t l; [ -L l ] && [ ! -e l ] && echo dangling; echo x > t; cat l
ln -s l l; cat l 2>/dev/null; echo $?
printf ab >f; wc -c <f
: ; echo $?
: > f; [ -s f ] || echo empty
false; x=1; echo $?
x=a; x=${x}b; x="$x"c; echo $x
if [ 1 -lt 2 ] && [ 2 -lt 3 ]; then echo both; fi
if (exit 2); then :; else echo $?; fi
(echo a
{ echo a
if true
echo a )
echo &&
| echo
fi
set -e
echo fi done then
echo "quoted \"inside\"" \"
echo 'it'\''s'
x=5; echo "${x}%" '%' $
unset nothing; echo ok
echo "$@" "$#" "$*"
env -i A=1 B=2; env A=1 sh -c 'echo $A'; env -i /bin/echo x
echo ünï; x=ü; echo "${x}ber"
[ -t 1 ] || echo no terminal
sleep x 2>/dev/null || echo refused
head -c 1000000 /dev/zero | wc -c
cat /dev/null; cat /dev/zero | head -c 3 | wc -c
pwd >/dev/null && cd / && pwd
"""


def scripts() -> list[str]:
    """The scripts above, one a line, with what a line's here-documents, quotes or backslash take along."""
    found: list[str] = []
    lines = iter(SCRIPTS.strip("\n").split("\n"))
    for first in lines:
        script = first + "\n"
        if first == "x=$(cat <<EOF":
            script += "".join(f"{next(lines)}\n" for _ in range(3))
        for part in first.split("<<")[1:] if "$(cat" not in first else []:
            end = part.lstrip("-").split(";")[0].strip("'")
            while script.splitlines()[-1].lstrip("\t") != end:
                script += next(lines) + "\n"
        if first.endswith("\\"):
            script += next(lines) + "\n"
        found.append(script)
    return found


def in_bash(script: str, folder: Path) -> tuple[bytes, int]:
    home = folder / "home"
    home.mkdir()
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=home,
        env={"PATH": PATH, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
    return done.stdout, done.returncode if done.returncode >= 0 else 128 - done.returncode


async def in_fake(script: str, folder: Path) -> tuple[bytes, int]:
    home = f"{folder}/home"
    vm = (await FakeProvider().allocate(VmSpec())).vm
    async with await vm.guest.open_job(JobRootSpec("shell")) as root:
        # Standard error goes out of the way: its words are bash's own, and not the same in every version.
        files = {f"{home}/.keep": b"", "/errors": b"", "/script": script.encode()}
        await (await root.exec(ExecSpec(["rm", f"{home}/.keep"], files=files))).wait()
        argv = ["sh", "-c", 'exec bash -c "$(cat /script)" 2> /errors']
        process = await root.exec(ExecSpec(argv, env={"PATH": PATH, "HOME": home}, cwd=home))
        output = b"".join([chunk async for chunk in process.output()])
        return output, (await process.wait()).code


@pytest.mark.skipif(shutil.which("bash", path=PATH) is None, reason="no bash to compare with")
@pytest.mark.parametrize("script", scripts())
async def test_as_bash_has_it(script: str, tmp_path: Path) -> None:
    assert await in_fake(script, tmp_path) == in_bash(script, tmp_path)


words = st.sampled_from(["a", "'b c'", '"$x"', "$x", '"$(echo q)"', "$?", "${y:-z}", "x=2", "\\*", '""'])
simple = st.one_of(
    st.lists(words, max_size=3).map(lambda parts: " ".join(["echo", *parts])),
    st.sampled_from(["true", "false", "x=1", "x='p  q'", "exit 3", '[ -n "$x" ]', "(exit 2)", "set -e", ":"]),
)


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from([" && ", " || ", "; ", "\n"]), inner).map("".join),
        # `!` is a word of the grammar at the beginning of a pipeline, and the name of a program within.
        st.tuples(inner, inner).map(lambda t: f"{t[0]} | {{ {t[1]}; }}" if t[1][0] == "!" else " | ".join(t)),
        inner.map(lambda text: text if text.startswith("!") else f"! {text}"),
        inner.map(lambda text: f"( {text} )"),
        inner.map(lambda text: f"{{ {text}; }}"),
        inner.map(lambda text: f'echo "$( {text} )"'),
        st.tuples(inner, inner, inner).map(lambda t: f"if {t[0]}; then {t[1]}; else {t[2]}; fi"),
        inner.map(lambda text: f"for x in 1 2; do {text}; done"),
    )


@pytest.mark.skipif(shutil.which("bash", path=PATH) is None, reason="no bash to compare with")
@settings(
    max_examples=settings().max_examples * 3 // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(script=st.recursive(simple, compound, max_leaves=6).map(lambda text: f"{text}\necho end $? $x\n"))
def test_whatever_is_put_together_is_as_bash_has_it(
    script: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import asyncio

    folder = tmp_path_factory.mktemp("shell")
    assert asyncio.run(in_fake(script, folder)) == in_bash(script, folder)


# What the fake's shell does not do it refuses: nothing is silently read as something else.


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("case x in x) :;; esac", "`case'"),
        ("f() { :; }", "functions"),
        ("function f { :; }", "`function'"),
        ("echo `date`", "use $(…)"),
        ('echo "`date`"', "use $(…)"),
        ("[[ a == a ]]", "`[['"),
        ("echo $((1 + 1))", "$((…))"),
        ("((x = 1))", "`(('"),
        ("echo ${x%y}", "${x%y"),
        ("echo ${x[0]}", "${x[0]"),
        ("set -k", "set -k"),
        ("exec > file", "`exec'"),
        ("time true", "`time'"),
        ("echo $'a'", "$'…'"),
        ("cat <<< word", "<<<"),
        ("cat <(true)", "<(…)"),
        ("a=(1 2)", "("),
    ],
)
async def test_refused(script: str, what: str) -> None:
    vm = (await FakeProvider().allocate(VmSpec())).vm
    async with await vm.guest.open_job(JobRootSpec("shell")) as root:
        argv = ["bash", "/step.sh"]
        process = await root.exec(ExecSpec(argv, files={"/step.sh": f"echo first\n{script}\n".encode()}))
        output = b"".join([chunk async for chunk in process.output()]).decode()
        assert (await process.wait()).code == 2
    assert "/step.sh: line 2: " in output
    assert what in output


@pytest.mark.parametrize("nested", ["$(", "(", "{ ", "if "])
async def test_nesting_has_an_end(nested: str) -> None:
    vm = (await FakeProvider().allocate(VmSpec())).vm
    async with await vm.guest.open_job(JobRootSpec("shell")) as root:
        process = await root.exec(ExecSpec(["sh", "-c", nested * 5000]))
        output = b"".join([chunk async for chunk in process.output()])
        assert (await process.wait()).code == 2
    assert output.startswith(b"sh: line ")
