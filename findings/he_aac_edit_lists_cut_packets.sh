#!/usr/bin/env bash
# FFmpeg begins an HE-AAC track at a whole packet, wherever its edit list begins.
#
# Seen with av==18.1.0 (libavcodec 62.28): of an M4A whose track counts 16,000 a second (32,000 Hz with SBR) an edit list
# that begins at 2,048 and one that begins at 2,529 give the same samples: 4,096 are cut, and 5,058 should be of the second.
# The end is not cut either: 10,240 samples come, where both edits last 9,000. The file is fdkaac 1.0.7's (FDK 2.0.3, -p 5
# -m 1 -G 1) of a click at 5,000 of 9,000 samples; with --include-sbr-delay fdkaac writes 2,529 itself. With AAC-LC the cut
# is exact.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" av==18.1.0 numpy==2.4.6
PYTHONPATH=$work/site python3 - <<'P'
import base64, io, struct, zlib
import av, numpy as np

FILE = zlib.decompress(base64.b85decode(
    'c-muNU{FXasVwj{aa3Rc0uY^BU}BV6oS(}80UT*Xsi_PMjD@)=i6x8<N)3y{elB1H$uKvtgZXZaV4eez=hU#+uF(O+WoP&@cY{6S'
    'k9`Zd_uXtXIXxrn)YAoW9wG<yTq{0LK4IYU?vY36or#TyPv&j?+Rm$f<jWEZe^a%4A>M(<Pr6?dp4P;!zV^jA{Y%nj>W@Mf7)d+d'
    '{GGAIp_*6z+WlS^lgSMJ-Nj6DO<z~qx62!P)Oh_`;D7bM{fUzL`t-V0K2KCmUSaU)kiNfW+v$s6`9nX>u8gz2QV|*|d^IVm$MOpo'
    '*lQMyY+n=>C^;=)(_~sT>2p4xgZghh)e~2}3@d)QNcNrPaC&GO3IrBQFP^-Uy7S(L{{H?3+rNKL{_pQ^=C3c%wmetFX4sR=kZ#$)'
    '@MklF{NW!7_41GZBz>-E{A1tV>HqkTgU~-Y<&!P^k6Zr9DKP(dXqs^;wW|RboC^;WKmu>d@drSsaJ3@^B~t@CFg#^)^YhDqyqw&!'
    'j1&eGU<Wioa0&x378sF*8BtZC^BoxQ0wy5REGbIN2C`#HvcYz;W10rE7hRAvdsR|XN{WHBOlnSX2|@?RTn?Cl3v*L46M+nc+!Snn'
    'mthD!0_G@Yq~sLAWQy}k^Uz%qk(-&924n~n=b{*-k^&KzNhwNALvl7xX;F>>gv}^ZT#}RnWM>tZ6sI7mi2~-3L=3MoG6=w&2LxuR'
    '#VN&*Ow!Px3Zz+pw77#P1H%%auUbJetUwV~5st8@E7*W6MkbJJij&d{KypR-IXO_%*`c&pae6@tvfTgwKvJT(1RR(Q2-PeMV3SIU'
    'laa)cO)>z=RUw51NF3yLJ|O000K1T(4$22%k>Zl%d?d3BfVjRir34fP<+-UPu&_Xh3}6HnB^DIqAjgJRCM3q4R+i+047384D2cE@'
    'OiRg5OiWfV)HBdC*HOsHOacn%f<#P!B8EB&VNO8`x%nxn3Wfma1O?j'
))
EDIT = struct.pack(">ii", 4500, 2048)  # how long, and from where
assert FILE.count(EDIT) == 1
found = []
for start in (2048, 2529):
    with av.open(io.BytesIO(FILE.replace(EDIT, struct.pack(">ii", 4500, start)))) as container:
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    found.append((len(wave), int(np.abs(wave).argmax())))
    print(f"edit list from {start} of 16,000 a second: {len(wave)} samples, the click at {found[-1][1]}")
raise SystemExit(0 if found == [(10240, 5961)] * 2 else "the behaviour has changed")
P
echo "as described: av 18.1.0"
