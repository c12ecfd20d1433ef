
import time
def test_it(names, web1, log, lab):
    name, address = names.new("https.example")
    got = web1.resolve(name)
    print("resolved", got)
    try:
        print(web1.hello(got[0], 443))
    except Exception as e:
        print(repr(e))
    print(web1.udp_result(got[0], 443))
    print("wrong port", end=" ")
    try: print(web1.hello(got[0], 81))
    except Exception as e: print(repr(e))
    try: print(web1.hello("10.201.1.250", 81))
    except Exception as e: print(repr(e))
    name, _, address6 = names.new("https.example", ipv6=True)
    got = web1.resolve(name, "AAAA")
    print(got, address6)
    try: print(web1.hello(got[0], 443))
    except Exception as e: print(repr(e))
    print(web1.udp_result(got[0], 443))
    import subprocess
    ns = lab.gateway.namespace.name
    print(ns, dir(lab))
    print(subprocess.run(["ip","netns","exec",ns,"nft","list","table","inet","sluice"],capture_output=True,text=True).stdout[:20000])
    print(log.tail(30))
    assert 0
