"""Fuzzed texts: each is a formula or a ParseError within 0.2 CPU-seconds, and none is ever run."""

import random
import resource
import time
from collections import Counter
from pathlib import Path

import pytest

from gpo_theory import InputError, Loss, ParseError, parse
from tests.support.soak import budget

LIMIT = 0.2  # CPU-seconds
MOST_MEMORY = 64 * 2**20  # bytes by which a whole run may grow
MARKER = Path("parser_was_here")

# Each would leave the marker file behind, or end the process, if any part of the text were ever evaluated.
PAYLOADS = (
    "__import__('os').system('touch {m}')", "__import__('pathlib').Path('{m}').touch()", "open('{m}','w')",
    "exec(\"open('{m}','w')\")", "eval(\"open('{m}','w')\")", "(lambda: open('{m}','w'))()", "(y := open('{m}','w'))",
    "[open('{m}','w') for _ in (1,)]", "{{open('{m}','w') for _ in (1,)}}", "{{1: open('{m}','w')}}",
    "(open('{m}','w') for _ in (1,))", "f\"{{open('{m}','w')}}\"", "''.join(map(str,[open('{m}','w')]))",
    "x.__class__.__base__.__subclasses__()", "().__class__.__mro__[1].__subclasses__()[0]",
    "exp.__globals__['__builtins__']['open']('{m}','w')", "getattr(x,'__class__')", "where(open('{m}','w'),1,2)",
    "max(*[open('{m}','w')],1)", "exp(**{{'x':open('{m}','w')}})", "exp(x=open('{m}','w'))",
    "open('{m}','w') if x<0 else 1", "x if 1 else exit()", "exit()", "quit()", "breakpoint()", "globals()", "await x",
    "yield x", "x[open('{m}','w')]", "(open('{m}','w'), x)", "not open('{m}','w')", "open('{m}','w') and x",
    "x<1<open('{m}','w')", "x@x", "x//0", "x%0", "x<<9999999999", "~x", "...", "None", "True", "b'x'", "'x'*10**10",
    "1j", "0x7fffffff", "1_0", "x;x", "x#x", "x\\\nx", "import os", "del x", "x=1", "*x", "**x", "print(x)",
    "sympify('x')", "S('x')", "Function('f')(x)", "Symbol('x', open('{m}','w'))", "S(\"open('{m}','w')\")",
    "Function('f')(x).subs(x, open('{m}','w'))", "x.y(open('{m}','w'))", "f'{{open(\"{m}\",\"w\")}}'", "x if open('{m}','w') else x",
    "1 if x else open('{m}','w')", "__import__('os').mknod('{m}')", "exec(\"import pathlib; pathlib.Path('{m}').touch()\")",
    "exp(x, *open('{m}','w'))", "exp(**open('{m}','w'))", "x); open('{m}','w'",
    # In the other spellings, and in the slips that an error corrects.
    "np.open('{m}','w')", "|open('{m}','w')|", "open('{m}','w')^2", "2^open('{m}','w')", "relu(open('{m}','w'))", "np.exp.__globals__",
    "lambda x: open('{m}','w')", "f(x)=open('{m}','w')", "\\frac{{open('{m}','w')}}{{1}}", "[open('{m}','w')]_+", "1_{{open('{m}','w')<0}}",
    "x<0 ? open('{m}','w') : 1", "open('{m}','w')x", "return open('{m}','w')", "(open('{m}','w')).exp()", "x.clamp(min=open('{m}','w'))",
    "log open('{m}','w')", "\\open('{m}','w')", "\u03b2*open('{m}','w')",
)
HEAVY = (
    "9**9**9**9", "(x**32)**32", "exp(exp(exp(9999)))", "1e400", "1e99*1e99", "-" * 900 + "x",
    "(" * 400 + "x" + ")" * 400, "(" * 10_000, "x" * 100_000, "1" * 5000, "0." + "0" * 900 + "1", "+".join(["x"] * 450),
    "*".join(["(1+x)"] * 150), "*".join(["(1+x)**32"] * 90), "(" * 30 + "1+x" + ")**2" * 30,
    "exp(" * 39 + "x" + ")" * 39, "max(" + ",".join(["x"] * 400) + ")", "where(x<0," * 60 + "x" + ",1)" * 60,
    "1/(" * 39 + "x" + ")" * 39, "(123456789012345678901234567890/7)**32", "**".join(["2"] * 200),
    "sqrt(" * 38 + "2" + ")" * 38, "x**(1/3)**(1/3)**(1/3)", "((2**32)**2)**x", "(1/3)**32*(1/7)**32", "x<" * 300 + "x",
    "[" * 500, "{" * 500, "'" * 999, "\\" * 999, "\x00" * 999, "é" * 999,
    "|" * 999, "|x" * 400, "|" * 499 + "x" + "|" * 499, "^" * 999, "2^" * 450 + "x", "x^2" * 300, "\u00b2" * 999, "x\u00b2" * 66, "np." * 300 + "log(x)",
    "|" * 99 + "x" + "|" * 99, "\\frac" * 40, "\\frac{1}" * 24, "[x]_+" * 39, "[" * 90 + "x" + "]_+" * 36, "1_{x<0}" * 28, "1_{" * 66 + "x<0", "log " * 48 + "x",
    "log^2(" * 32, "x?" * 99, "x?x:" * 49, "2x" * 99, "\u03b2" * 199, "\ufdfa" * 199, "f(x)=" * 39, "lambda x:" * 22, "x<" * 99 + "x", "relu(" * 39 + "x" + ")" * 39,
    "pow(" * 39 + "x" + ",2)" * 39, "(x)" * 66, "$" * 199, "beta*" * 39 + "rho", "(" * 99 + "x" + ")" * 99 + "x", "x.exp()" * 25, ".exp()" * 33, "e^" * 99 + "x",
)
WORDS = (
    "x x x 1 2 7 0 0.1 .5 3. 1e3 1e-9 1e99 113/97 pi e ( ( ) ) , + - * / ** exp( log( sqrt( abs( max( min( where( sigmoid( tanh( "
    "erfc( atan( log_ndtr( softplus( < <= > >= and or not if else lambda : := = == != [ ] { } ' \" . x. .x __ _ @ % // ~ ^ & | ; # $ ? ! \\ "
    "import class def None True f'{x}' 0x1f 1j 1_0 tau beta X EXP x2 2x in is for while "
    "^ ^ | | |x| ^2 ^( e^ 2^ relu( np.log( F.relu( torch. sigma( Phi( ln( pow( \\log \\frac{ \\sigma( \\left( _+ ]_+ 1_{ [ f(x)= .exp() .clamp(min=0) rho && ||"
)
ODD = ("·", "π", "√", "≤", "β", "σ", "⁻", "³", "\n", "\t", "\r", "\x00", "\x0b", "\u00a0", "\u2028", "\u202e", "х", "ｘ", "１", "²", "−", "∞", "\ud800", "🙂", "e\u0301", "\ufeff")


def text(random_: random.Random) -> str:
    """A payload, a heavy text, a soup of words, a formula with a few letters changed, or noise."""
    kind = random_.random()
    if kind < 0.15:
        payload = random_.choice(PAYLOADS).format(m=MARKER)
        frame = ("{}", "x+{}", "exp({})", "max({},x)", "where(x<0,{},1)", "where({}<0,x,1)", "-({})", "({})**2", "x**({})", "1/({})")
        return random_.choice(frame).format(payload)
    if kind < 0.2:
        return random_.choice(HEAVY) + random_.choice(("", "", "+x", ")"))
    if kind < 0.5:
        return random_.choice(("", " ")).join(random_.choice(WORDS.split()) for _ in range(random_.randint(1, 60)))
    if kind < 0.9:
        return _damaged(random_, _formula(random_, random_.randint(1, 6)))
    alphabet = [*map(chr, range(32, 127)), *ODD, *map(chr, random_.sample(range(0x110000), 20))]
    return "".join(random_.choice(alphabet) for _ in range(random_.randint(0, 200)))


def _formula(random_: random.Random, depth: int) -> str:
    if depth == 0 or random_.random() < 0.1:
        return random_.choice(("x", "x", "2", "0.1", "113/97", "pi", "e", "1e-3"))
    one, two = (_formula(random_, depth - 1) for _ in range(2))
    shape = random_.choice(("({a}+{b})", "({a}-{b})", "{a}*({b})", "({a})/({b})", "({a})**{n}", "-({a})", "exp({a})", "log({a})", "sqrt({a})",
                            "max({a},{b})", "min({a},{b},1)", "abs({a})", "where({a}<{b},{a},{b})", "where({a}<0 and x>1,{b},1)",
                            "sigmoid({a})", "tanh({a})", "softplus({a})", "log_ndtr({a})",
                            "|{a}|", "({a})^{n}", "e^({a})", "2^-({a})", "np.exp({a})", "F.relu({a})", "Log({a})", "-{a}\u00b7({b})", "pow({a},2)"))  # fmt: skip
    return shape.format(a=one, b=two, n=random_.choice((-2, 0, 2, 3, 31, "(1/2)", 33)))[:1200]


def _damaged(random_: random.Random, formula: str) -> str:
    for _ in range(random_.choice((0, 0, 1, 2, 5))):
        place = random_.randrange(len(formula) + 1)
        formula = formula[:place] + random_.choice((*WORDS.split(), *ODD, "")) + formula[place + random_.randint(0, 2) :]
    return formula


def outcome(one: str) -> Loss | ParseError:
    """What becomes of a text, within the limit; the best of two, because a garbage collection is not the parser's."""
    spent: list[float] = []
    while not spent or (spent[-1] > LIMIT and len(spent) < 2):
        start = time.process_time()
        try:
            found: Loss | ParseError = parse(one)
        except ParseError as error:
            found = error
        spent.append(time.process_time() - start)
    assert min(spent) <= LIMIT, f"{min(spent):.2f} CPU-s for {one[:120]!r}"
    assert not isinstance(found, ParseError) or "\n" not in str(found)
    return found


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_fuzzed_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random_, before = random.Random(1), memory()
    refused = Counter(isinstance(outcome(text(random_)), ParseError) for _ in range(budget(3000, 100_000)))
    assert list(tmp_path.iterdir()) == [], "a text was run"
    assert memory() - before < MOST_MEMORY
    assert refused[False] > 300, "the law would be about refusals alone"
    assert refused[True] > 1000


@pytest.mark.parametrize("payload", [payload.format(m=MARKER) for payload in PAYLOADS])
def test_a_payload_is_refused_and_not_run(payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a formula, as a part of one, and as a parameter's name and value."""
    monkeypatch.chdir(tmp_path)
    for frame in ("{}", "x+{}", "exp({})", "where(x<0,{},1)", "where({}<0,x,1)", "x**({})"):
        with pytest.raises(ParseError):
            parse(frame.format(payload))
    for formula, parameters in (("x", {payload: 1}), ("x", {f"a{payload}": 1}), ("a*x", {"a": payload})):
        with pytest.raises(InputError):
            parse(formula, parameters)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("heavy", HEAVY, ids=range(len(HEAVY)))
def test_a_heavy_text_costs_little(heavy: str) -> None:
    before = memory()
    outcome(heavy)
    assert memory() - before < MOST_MEMORY
