#!/usr/bin/env python3
"""Writes the LDIF of N users and N/100 groups: slapd-users.py N

User i has the password "pw-<i>" and a fixed entryUUID; every third one has a title that is not ASCII. Groups have 100 members each,
and memberOf is written out, which slapadd does not do.
"""
import sys
import uuid

count = int(sys.argv[1])
suffix = "dc=example,dc=org"
out = sys.stdout.write
out(f"dn: {suffix}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n")
for unit in ("people", "groups", "policies", "svc"):
    out(f"dn: ou={unit},{suffix}\nobjectClass: organizationalUnit\nou: {unit}\n\n")
out(f"""dn: cn=default,ou=policies,{suffix}
objectClass: pwdPolicy
objectClass: device
cn: default
pwdAttribute: userPassword
pwdMaxFailure: 3
pwdLockout: TRUE
pwdLockoutDuration: 300
pwdMinLength: 4
pwdInHistory: 3

dn: uid=app,ou=svc,{suffix}
objectClass: account
objectClass: simpleSecurityObject
uid: app
userPassword: app-secret

""")
namespace = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
for i in range(count):
    title = "title:: SW5nw6luaWV1cg==" if i % 3 == 0 else "title: Engineer"
    out(f"""dn: uid=user{i:06d},ou=people,{suffix}
objectClass: inetOrgPerson
uid: user{i:06d}
cn: User {i:06d}
sn: Sur{i % 997}
givenName: Given{i % 389}
mail: user{i:06d}@example.org
employeeNumber: {i}
departmentNumber: {i % 50}
telephoneNumber: +1 555 {i % 10000:04d}
{title}
userPassword: pw-{i}
entryUUID: {uuid.uuid5(namespace, f'user{i}')}
memberOf: cn=group{i // 100:05d},ou=groups,{suffix}

""")
for group in range((count + 99) // 100):
    out(f"dn: cn=group{group:05d},ou=groups,{suffix}\nobjectClass: groupOfNames\ncn: group{group:05d}\n")
    for i in range(group * 100, min(count, group * 100 + 100)):
        out(f"member: uid=user{i:06d},ou=people,{suffix}\n")
    out("\n")
