"""Forgeries by act: programs that reach for the test, its judge or the verdict.

Each is a text of Python that defines a wrong `square`, and does something before, or when called.
"""

WRONG = "\ndef square(x):\n    return x + 1\n"
IMPORTS = (
    "import atexit, builtins, codecs, ctypes, gc, inspect, io, json, marshal, math, os, pickle, re"
    "\nimport resource, signal, socket, struct, sys, threading, time, types, unittest, weakref\n"
)
# A test's text, or its compiled form, found anywhere: what it expects of an argument is returned.
READER = """
PATTERN = re.compile(rb"(?:square|candidate)[(](-?[0-9.]+)[)](?:,| ==) (-?[0-9.]+)")
def expected(x, texts):
    for text in texts:
        data = text if isinstance(text, bytes) else str(text).encode("utf8", "replace")
        for argument, value in PATTERN.findall(data):
            if float(argument) == x:
                return eval(value)
    return x + 1
"""


def wrong(act: str) -> str:
    """Return a program that acts while it is loaded, with a wrong function."""
    return IMPORTS + act + WRONG


def called(act: str, before: str = "") -> str:
    """Return a program that acts when it is called."""
    body = "".join(f"    {line}\n" for line in act.splitlines())
    return f"{IMPORTS}{before}\ndef square(x):\n{body}    return x + 1\n"


def reading(texts: str, before: str = "") -> str:
    """Return a program that searches texts, given as an expression, for what a test expects."""
    return f"{IMPORTS}{READER}{before}\ndef square(x):\n    return expected(x, {texts})\n"


FRAMES = """
def frames():
    frame = sys._getframe()
    while frame:
        yield repr(frame.f_locals), repr(frame.f_globals)
        yield from map(repr, frame.f_code.co_consts)
        frame = frame.f_back
"""
CONSTANT = """
def constants():
    frame = sys._getframe(1)
    while frame:
        for value in frame.f_code.co_consts:
            if type(value) in (int, float) and value != 0:
                yield value
        frame = frame.f_back
"""
MEMORY = """
libc = ctypes.CDLL(None)
def memory():
    read, write = os.pipe()
    start = id(object()) & ~4095
    for address in range(start - (16 << 20), start + (16 << 20), 4096):
        if libc.write(write, ctypes.c_void_p(address), 4096) == 4096:
            yield os.read(read, 4096)
"""
FILES = """
def files():
    for number in range(64):
        try:
            os.set_blocking(number, False)
            yield os.pread(number, 1 << 20, 0)
        except OSError:
            pass
    for root in ("/tmp", "/dev/shm", "/proc/self", "/proc/1", f"/proc/{os.getppid()}", "/var/tmp"):
        for folder, _, names in os.walk(root):
            for name in names:
                try:
                    with open(os.path.join(folder, name), "rb") as file:
                        yield file.read(1 << 20)
                except OSError:
                    pass
"""
EVERYWHERE = """
for file in range(64):
    try:
        {0}
    except (OSError, ValueError):
        pass
"""
EVERYONE = """
for process in {{*range(1, 40), -1, os.getppid()}} - {{os.getpid()}}:
    try:
        {0}
    except OSError:
        pass
"""

ENDINGS = {
    f"{name} {when}": program
    for name, act in {
        "exit of the process": "os._exit(0)",
        "sys.exit": "sys.exit(0)",
        "exit of the C library": "ctypes.CDLL(None).exit(0)",
        "SystemExit": "raise SystemExit",
        "KeyboardInterrupt": "raise KeyboardInterrupt",
        "a skipped test": "raise unittest.SkipTest('later')",
        "an assertion": "raise AssertionError",
        "the end of an iteration": "raise StopIteration",
        "the end of a generator": "raise GeneratorExit",
        "a child that goes on": "if os.fork(): os._exit(0)",
        "a parent that goes on": "if not os.fork(): os._exit(0)",
        "a thread that ends all": (
            "threading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(1)"
        ),
        "a signal": (
            "signal.signal(signal.SIGALRM, lambda *_: os._exit(0))\nsignal.setitimer(0, .05)"
        ),
        "its own death": "os.kill(os.getpid(), 9)",
    }.items()
    for when, program in (("at once", wrong(act)), ("when called", called(act)))
}
PATCHES = {
    "assertions that are no errors": "builtins.AssertionError = ValueError",
    "assertions that are everything": "builtins.AssertionError = builtins.Exception = object",
    "no operation of unittest": (
        "for name in dir(unittest.TestCase):\n"
        "    if name.startswith(('assert', 'run', '__call__')):\n"
        "        setattr(unittest.TestCase, name, lambda *a, **k: None)\n"
        "unittest.TestResult.wasSuccessful = lambda self: True\nunittest.main = lambda **k: None"
    ),
    "another unittest": "sys.modules['unittest'] = types.ModuleType('unittest')",
    "builtin functions": (
        "builtins.isinstance = builtins.all = builtins.any = lambda *a: True\n"
        "builtins.abs = builtins.len = lambda x: 0\nbuiltins.sorted = builtins.str = lambda *a: '9'"
    ),
    "evaluation": "builtins.exec = builtins.eval = builtins.compile = lambda *a, **k: 9",
    "the making of classes": "builtins.__build_class__ = lambda *a, **k: object",
    "imports": "builtins.__import__ = lambda *a, **k: types.ModuleType('x')",
    "codecs of replies": (
        "json.dumps = marshal.dumps = pickle.dumps = lambda *a, **k: b'9'\n"
        "json.JSONEncoder.encode = lambda *a: '9'\njson.loads = lambda *a, **k: {}\n"
        "struct.pack = lambda *a: b'9'\nstruct.unpack = lambda *a: (9,)"
    ),
    "ways out": (
        "os.write = os.read = lambda *a: 0\nsocket.socket.send = lambda *a: 0\nos._exit = abs"
    ),
    "small integers": (
        "ctypes.memmove(id(9) + 24, id(4) + 24, 4)\nctypes.memmove(id(16) + 24, id(5) + 24, 4)"
    ),
    "the comparison of integers": (
        "gc.get_referents(int.__dict__)[0]['__eq__'] = lambda *a: True\n"
        "ctypes.pythonapi.PyType_Modified(ctypes.py_object(int))"
    ),
    "hooks": (
        "sys.excepthook = sys.displayhook = sys.unraisablehook = lambda *a: os._exit(0)\n"
        "threading.excepthook = lambda *a: os._exit(0)\natexit.register(os._exit, 0)"
    ),
    "its end by finalisers": (
        "class Last:\n    def __del__(self): os._exit(0)\n"
        "last = Last()\nweakref.finalize(last, os._exit, 0)"
    ),
    "tracing": (
        "def trace(frame, event, value):\n    frame.f_trace_lines = True\n"
        "    if event == 'exception': os._exit(0)\n    return trace\n"
        "sys.settrace(trace)\nthreading.settrace(trace)\nsys.setprofile(lambda *a: None)\n"
        "frame = sys._getframe()\nwhile frame:\n    frame.f_trace = trace\n    frame = frame.f_back"
    ),
    "optimisation": "sys.flags = types.SimpleNamespace(optimize=2)\nbuiltins.__debug__ if 1 else 0",
    "modules beside the program": (
        "for name in ('unittest', 'math', 'candidate', 'solution', 'json', 'asyncio'):\n"
        "    with open(name + '.py', 'w') as file:\n        file.write('import os; os._exit(0)')\n"
        "sys.path.insert(0, os.getcwd())"
    ),
    "an importer": (
        "class Finder:\n    def find_spec(self, *a): os._exit(0)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "for name in ('unittest', 'math', 'collections'): sys.modules.pop(name, None)"
    ),
    "encodings": "codecs.register(lambda name: os._exit(0))",
    "names of the test": (
        "abs = round = lambda *a: 0\nlen = lambda x: 1\nisinstance = all = lambda *a: True\n"
        "AssertionError = ValueError = type('E', (BaseException,), {})\n"
        "def check(*a): return True\ntest_square = candidate = check\n"
        "class TestSquare: pass\nprint = range = enumerate = sum = lambda *a: ()"
    ),
    "modules of the runner": (
        "main = sys.modules['__main__']\nfor name in dir(main):\n"
        "    if callable(getattr(main, name)): setattr(main, name, lambda *a, **k: 9)"
    ),
    "recursion": "sys.setrecursionlimit(60)",
    "limits": (
        "for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):\n"
        "    resource.setrlimit(kind, (0, 0))"
    ),
    "its name": (
        "ctypes.CDLL(None).prctl(15, b'judge', 0, 0, 0)\nthreading.current_thread().name = 'judge'"
    ),
    "its death with its parent": "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nos.setsid()",
}
WRITES = {
    "a line of the report": "os.write(file, b'pass 0.001 0 -\\n')",
    "text without an end": "os.write(file, b'[' * 60_000)",
    "noise": "os.write(file, os.urandom(60_000))",
    "a length without a value": (
        "os.write(file, struct.pack('>Q', 1 << 40) + struct.pack('<Q', 1 << 40))"
    ),
    "empty lines": "os.write(file, b'\\n' * 5_000)",
    "a result before the question": 'os.write(file, b\'{"result": 9, "value": 9, "ok": true}\\n\')',
    "closed files": "os.close(file)",
    "other files": "os.dup2(os.open('/dev/null', os.O_RDWR), file)",
    "a shared file": "os.dup2(1, file)",
    "half of a socket": "socket.socket(fileno=os.dup(file)).shutdown(socket.SHUT_RD)",
    "a file handed back": "socket.send_fds(socket.socket(fileno=os.dup(file)), [b'9'], [0, 1, 2])",
}
SIGNALS = {
    "death to all": "os.kill(process, 9)",
    "a halt for all": "os.kill(process, signal.SIGSTOP)",
    "an interrupt for all": "os.kill(process, signal.SIGINT)",
    "a trace of all": "ctypes.CDLL(None).ptrace(16, process, 0, 0)",
    "writing into memory": "os.open(f'/proc/{process}/mem', os.O_RDWR)",
    "less time for all": "resource.prlimit(process, resource.RLIMIT_CPU, (0, 0))",
}
READS = {
    "frames": reading("(text for pair in frames() for text in pair)", FRAMES),
    "objects": reading("(o for o in gc.get_objects() + gc.get_referrers(str) for o in [repr(o)])"),
    "texts of objects": reading(
        "(c for o in gc.get_objects() for c in gc.get_referents(o) if type(c) in (str, bytes))"
    ),
    "the stack": reading("(repr(inspect.stack()), repr(sys._current_frames()))"),
    "arguments and input": reading("(repr(sys.argv), repr(sys.orig_argv), sys.__stdin__.read())"),
    "files": reading("files()", FILES),
    "memory": reading("memory()", MEMORY),
    "constants of the caller": (
        f"{IMPORTS}{CONSTANT}\ndef square(x):\n"
        "    return next((c for c in constants() if c not in (x, x + 1)), x + 1)\n"
    ),
}
FORGED_ACTS = {
    **ENDINGS,
    **{f"another meaning of {name}": wrong(act) for name, act in PATCHES.items()},
    **{
        f"another meaning of {name}, when called": called(act)
        for name, act in PATCHES.items()
        if name not in ("names of the test", "modules of the runner")
    },
    **{f"{name} in every file": wrong(EVERYWHERE.format(act)) for name, act in WRITES.items()},
    **{
        f"{name} in every file, when called": called(EVERYWHERE.format(act))
        for name, act in WRITES.items()
    },
    **{f"{name}, processes": wrong(EVERYONE.format(act)) for name, act in SIGNALS.items()},
    **{
        f"{name}, processes, when called": called(EVERYONE.format(act))
        for name, act in SIGNALS.items()
    },
    **{f"reading {name}": program for name, program in READS.items()},
}
