"Installs craft_nb: everything it says comes from settings.ini, which nbdev reads too."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

py_versions = '3.10 3.11 3.12 3.13'.split()
statuses = {'3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}
readme = here/'README.md'

tested = 'docs', 'serve', 'ray', 'log', 'local', 'models'
extras = {k: cfg[f'{k}_requirements'].split() for k in ('dev', 'browser', *tested)}
for k in tested: extras['dev'] += extras[k]

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    author=cfg['author'], keywords=cfg['keywords'].split(),
    license='Apache-2.0', license_files=['LICENSE', 'NOTICE'],
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    packages=find_packages(include=['craft_nb', 'craft_nb.*']),
    package_data={'craft_nb': ['assets/**']},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
    classifiers=[f"Development Status :: {cfg['status']} - {statuses[cfg['status']]}",
                 f"Intended Audience :: {cfg['audience']}", f"Natural Language :: {cfg['language']}"]
                + [f'Programming Language :: Python :: {v}' for v in py_versions],
    zip_safe=False)
