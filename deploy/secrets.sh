#!/bin/sh
# Makes what deploy/compose.yaml wants below deploy/secrets, and leaves alone what is there already:
#
#   api_token    the token to call the coordinator with: CHAINRULE_TOKEN_FILE=deploy/secrets/api_token
#   api_tokens   who may call: a line for each token, by its SHA-256
#   metrics_token  what Prometheus looks with: it may read
#   grafana_password  of Grafana's user admin
#   ray_token    what coordinator and workers know each other by
#   ca.pem ca.key server.pem server.key   for TLS: a CA of your own, and a certificate for this machine
#
# Needs openssl. The directory is for its owner alone; the files in it can be read by the containers' user.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets

token() { openssl rand -hex 32 | tr -d '\n'; }
sha256() { openssl dgst -sha256 -r <"$1" | cut -d' ' -f1; }

[ -s api_token ] || token >api_token
[ -s metrics_token ] || token >metrics_token
[ -s grafana_password ] || token >grafana_password
[ -s ray_token ] || token >ray_token
if [ ! -s api_tokens ]; then
    printf 'admin admin %s\n' "$(sha256 api_token)" >api_tokens
    printf 'prometheus read %s\n' "$(sha256 metrics_token)" >>api_tokens
fi
if [ ! -s server.pem ]; then
    # What it may be used for is said, or strict clients, such as Python 3.13's own, don't take it.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.pem -subj "/CN=Chainrule CA of this machine" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -keyout server.key -out server.csr -subj "/CN=coordinator" 2>/dev/null
    names="DNS:coordinator,DNS:localhost,IP:127.0.0.1${1:+,DNS:$1}"
    printf '%s\n' "subjectAltName=$names" extendedKeyUsage=serverAuth keyUsage=critical,digitalSignature \
        basicConstraints=critical,CA:FALSE subjectKeyIdentifier=hash authorityKeyIdentifier=keyid >server.ext
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 \
        -extfile server.ext -out server.pem 2>/dev/null
    rm -f server.csr server.ext ca.srl
fi
chmod 0444 api_tokens metrics_token ray_token grafana_password server.pem server.key ca.pem
chmod 0400 api_token ca.key
echo "secrets are in $(pwd)"
