"""Every real item becomes the scene that its JSON says, field by field.

The table was read off the JSON files by a script that knows nothing of the package, and by eye:
product names cut at their underscores, bounds and areas (square degrees, shoelace) of the rings with
360 added to western longitudes where a ring crosses the antimeridian.
"""

import json
from datetime import UTC, datetime

import pytest

from cube.errors import InputError
from cube.stac import scene_from_item
from cube.stac.footprint import unwrapped

API = "https://api.example/collections/c/items/i"

# file#number | id | sensor | tile | overpass | time | baseline | epsg | offset | why
#   | cloud cover | west south east north | area | end of the blue band's address | has MTD_MSIL2A.xml
TABLE = """
stac-items/antimeridian/S2A_OPER_MSI_L2A_TL_2APS_20230603T031757_A041497_T01WCQ.json#0 | S2A_OPER_MSI_L2A_TL_2APS_20230603T031757_A041497_T01WCQ | sentinel-2-l2a | 01WCQ | S2A_20230602T233651 | 2023-06-02T23:37:44.273000 | 05.09 | 32601 | -1000 | stated | 62.085807 | 179.760 66.597 180.963 67.602 | 0.6720 | 1/R10m/B02.jp2 | no
stac-items/antimeridian/S2A_OPER_MSI_L2A_TL_2APS_20230730T020155_A042312_T01VCC.json#0 | S2A_OPER_MSI_L2A_TL_2APS_20230730T020155_A042312_T01VCC | sentinel-2-l2a | 01VCC | S2A_20230729T232641 | 2023-07-29T23:30:30.691000 | 05.09 | 32601 | -1000 | stated | 100.0 | 179.724 56.266 180.700 56.823 | 0.3812 | 0/R10m/B02.jp2 | no
stac-items/antimeridian/S2A_OPER_MSI_L2A_TL_2APS_20230806T022123_A042412_T60VXH.json#0 | S2A_OPER_MSI_L2A_TL_2APS_20230806T022123_A042412_T60VXH | sentinel-2-l2a | 60VXH | S2A_20230805T231601 | 2023-08-05T23:20:42.833000 | 05.09 | 32660 | -1000 | stated | 99.750924 | 178.597 55.812 180.390 56.566 | 0.9513 | 0/R10m/B02.jp2 | no
stac-items/antimeridian/S2B_OPER_MSI_L2A_TL_2BPS_20230503T100334_A030615_T60VXH.json#0 | S2B_OPER_MSI_L2A_TL_2BPS_20230503T100334_A030615_T60VXH | sentinel-2-l2a | 60VXH | S2B_20230115T232919 | 2023-01-15T23:30:24.973000 | 05.09 | 32660 | -1000 | stated | 64.941293 | 178.620 56.049 180.436 56.833 | 0.8387 | 0/R10m/B02.jp2 | no
stac-items/antimeridian/S2B_OPER_MSI_L2A_TL_2BPS_20230512T234921_A032288_T01VCG.json#0 | S2B_OPER_MSI_L2A_TL_2BPS_20230512T234921_A032288_T01VCG | sentinel-2-l2a | 01VCG | S2B_20230512T231559 | 2023-05-12T23:19:32.631000 | 05.09 | 32601 | -1000 | stated | 100.0 | -179.996 59.974 -178.616 60.426 | 0.4497 | 0/R10m/B02.jp2 | no
stac-items/antimeridian/S2B_OPER_MSI_L2A_TL_2BPS_20230513T005426_A032288_T01VCG.json#0 | S2B_OPER_MSI_L2A_TL_2BPS_20230513T005426_A032288_T01VCG | sentinel-2-l2a | 01VCG | S2B_20230512T231559 | 2023-05-12T23:19:39.792000 | 05.09 | 32601 | -1000 | stated | 99.847698 | 179.548 59.405 181.410 60.329 | 1.3012 | 1/R10m/B02.jp2 | no
stac-items/cdse/cdse_stac110_item_ABRIDGED.json#0 | S2C_MSIL2A_20250330T100051_N0511_R122_T33UWP_20250330T145914 | sentinel-2-l2a | 33UWP | S2C_20250330T100051 | 2025-03-30T10:00:51.025000 | 05.11 | 32633 | -1000 | stated | 86.041468 | 15.000 47.756 16.493 48.753 | 1.4258 | IMG_DATA/R10m/T33UWP_20250330T100051_B02_10m.jp2 | no
stac-items/earth-search-v0/S2A_28QCH_20200714_0_L2A.json#0 | S2A_28QCH_20200714_0_L2A | sentinel-2-l2a | 28QCH | S2A_20200714T115221 | 2020-07-14T11:55:52 | 02.14 | 32628 | 0 | old | 2.36 | -16.920 20.053 -16.726 20.792 | 0.0716 | 2020/S2A_28QCH_20200714_0_L2A/B02.tif | no
stac-items/earth-search-v1/S2A_12RWT_20240106_0_L2A.json#0 | S2A_12RWT_20240106_0_L2A | sentinel-2-l2a | 12RWT | S2A_20240106T175731 | 2024-01-06T18:06:01.022000 | 05.10 | 32612 | 0 | applied | 1.051041 | -110.830 28.835 -109.864 29.830 | 0.8275 | ./B02.tif | no
stac-items/earth-search-v1/items_39Q_2023-06.itemcollection.json#0 | S2A_39QTA_20230628_0_L2A | sentinel-2-l2a | 39QTA | S2A_20230628T070631 | 2023-06-28T07:24:41.632000 | 05.09 | 32639 | 0 | applied | 4.025136 | 48.151 17.979 49.203 18.984 | 1.0306 | 6/S2A_39QTA_20230628_0_L2A/B02.tif | no
stac-items/earth-search-v1/items_39Q_2023-06.itemcollection.json#1 | S2A_39QUA_20230628_0_L2A | sentinel-2-l2a | 39QUA | S2A_20230628T070631 | 2023-06-28T07:24:38.255000 | 05.09 | 32639 | 0 | applied | 4.255069 | 49.100 17.991 50.148 18.991 | 1.0316 | 6/S2A_39QUA_20230628_0_L2A/B02.tif | no
stac-items/earth-search-v1/items_39Q_2023-06.itemcollection.json#2 | S2B_39QTA_20230623_0_L2A | sentinel-2-l2a | 39QTA | S2B_20230623T070629 | 2023-06-23T07:24:41.575000 | 05.09 | 32639 | 0 | applied | 0 | 48.151 17.979 49.203 18.984 | 1.0306 | 6/S2B_39QTA_20230623_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_12RWT_20240106_0_L2A.json#0 | S2A_12RWT_20240106_0_L2A | sentinel-2-l2a | 12RWT | S2A_20240106T175731 | 2024-01-06T18:06:01.022000 | 05.10 | 32612 | 0 | applied | 1.051041 | -110.830 28.835 -109.864 29.830 | 0.8275 | ./B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_32TMS_20221207_0_L2A.json#0 | S2A_32TMS_20221207_0_L2A | sentinel-2-l2a | 32TMS | S2A_20221207T102411 | 2022-12-07T10:28:04.015000 | 05.09 | 32632 | 0 | applied | 8.418052 | 7.692 45.958 9.128 46.954 | 1.3999 | 12/S2A_32TMS_20221207_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20161202_0_L2A.json#0 | S2A_33TWN_20161202_0_L2A | sentinel-2-l2a | 33TWN | S2A_20161202T100402 | 2016-12-02T10:03:56.457000 | 00.01 | 32633 | 0 | old | 51.059555 | 15.000 46.857 16.467 47.854 | 1.4364 | 12/S2A_33TWN_20161202_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20171005_0_L2A.json#0 | S2A_33TWN_20171005_0_L2A | sentinel-2-l2a | 33TWN | S2A_20171005T095031 | 2017-10-05T09:50:27.461000 | 00.01 | 32633 | 0 | old | 45.035923 | 15.307 46.857 16.467 47.852 | 0.9560 | 10/S2A_33TWN_20171005_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20181119_0_L2A.json#0 | S2A_33TWN_20181119_0_L2A | sentinel-2-l2a | 33TWN | S2A_20181119T095301 | 2018-11-19T09:57:30.422000 | 02.10 | 32633 | 0 | old | 85.52471 | 15.312 46.857 16.467 47.852 | 0.9516 | 11/S2A_33TWN_20181119_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20190707_1_L2A.json#0 | S2A_33TWN_20190707_1_L2A | sentinel-2-l2a | 33TWN | S2A_20190707T095031 | 2019-07-07T09:57:41.993000 | 02.12 | 32633 | 0 | old | 84.36637 | 15.306 46.857 16.467 47.852 | 0.9589 | 7/S2A_33TWN_20190707_1_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20200202_0_L2A.json#0 | S2A_33TWN_20200202_0_L2A | sentinel-2-l2a | 33TWN | S2A_20200202T095221 | 2020-02-02T09:57:28.980000 | 02.13 | 32633 | 0 | old | 44.304986 | 15.318 46.857 16.467 47.852 | 0.9446 | 2/S2A_33TWN_20200202_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20210328_0_L2A.json#0 | S2A_33TWN_20210328_0_L2A | sentinel-2-l2a | 33TWN | S2A_20210328T095031 | 2021-03-28T09:57:34.786000 | 02.14 | 32633 | 0 | old | 90.703823 | 15.307 46.857 16.467 47.852 | 0.9548 | 3/S2A_33TWN_20210328_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20210629_0_L2A.json#0 | S2A_33TWN_20210629_0_L2A | sentinel-2-l2a | 33TWN | S2A_20210629T100031 | 2021-06-29T10:07:35.757000 | 03.00 | 32633 | 0 | old | 9.187043 | 15.000 46.857 16.467 47.854 | 1.4364 | 6/S2A_33TWN_20210629_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_33TWN_20220122_0_L2A.json#0 | S2A_33TWN_20220122_0_L2A | sentinel-2-l2a | 33TWN | S2A_20220122T095321 | 2022-01-22T09:57:36.924000 | 03.01 | 32633 | 0 | old | 51.567542 | 15.311 46.857 16.467 47.852 | 0.9515 | 1/S2A_33TWN_20220122_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2A_OPER_MSI_L2A_TL_2APS_20230602T025701_A041483_T01WCR.json#0 | S2A_OPER_MSI_L2A_TL_2APS_20230602T025701_A041483_T01WCR | sentinel-2-l2a | 01WCR | S2A_20230602T000611 | 2023-06-02T00:07:24.355000 | 05.09 | 32601 | -1000 | stated | 61.174244 | 178.118 67.461 180.875 68.498 | 2.5659 | 0/R10m/B02.jp2 | no
stac-items/earth-search-v1-33TWN/S2B_33TWN_20180521_1_L2A.json#0 | S2B_33TWN_20180521_1_L2A | sentinel-2-l2a | 33TWN | S2B_20180521T100029 | 2018-05-21T10:07:22.966000 | 02.07 | 32633 | 0 | old | 47.401396 | 15.000 46.857 16.458 47.794 | 1.1465 | 5/S2B_33TWN_20180521_1_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2B_33TWN_20180806_0_L2A.json#0 | S2B_33TWN_20180806_0_L2A | sentinel-2-l2a | 33TWN | S2B_20180806T095029 | 2018-08-06T09:52:49.768000 | 00.01 | 32633 | 0 | old | 26.577784 | 15.311 46.857 16.467 47.852 | 0.9518 | 8/S2B_33TWN_20180806_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2B_33TWN_20181005_0_L2A.json#0 | S2B_33TWN_20181005_0_L2A | sentinel-2-l2a | 33TWN | S2B_20181005T095029 | 2018-10-05T09:57:20.357000 | 02.08 | 32633 | 0 | old | 1.434274 | 15.307 46.857 16.464 47.841 | 0.9052 | 10/S2B_33TWN_20181005_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2B_33TWN_20181104_0_L2A.json#0 | S2B_33TWN_20181104_0_L2A | sentinel-2-l2a | 33TWN | S2B_20181104T095159 | 2018-11-04T09:52:33.148000 | 02.09 | 32633 | 0 | old | 91.92775 | 15.299 46.857 16.467 47.852 | 0.9654 | 11/S2B_33TWN_20181104_0_L2A/B02.tif | no
stac-items/earth-search-v1-33TWN/S2B_33TWN_20190503_0_L2A.json#0 | S2B_33TWN_20190503_0_L2A | sentinel-2-l2a | 33TWN | S2B_20190503T095039 | 2019-05-03T09:57:44.813000 | 02.11 | 32633 | 0 | old | 93.7016 | 15.300 46.857 16.467 47.852 | 0.9619 | 5/S2B_33TWN_20190503_0_L2A/B02.tif | no
stac-items/other/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json#0 | LC08_L2SP_028030_20200114_20200824_02_T1_SR | landsat-c2-l2 | 028030 | L08-028_20200114T170516 | 2020-01-14T17:05:46.732651 | 02 | 32615 | 0 | sensor | 8.18 | -96.956 42.119 -94.144 44.238 | 4.0486 | 030/LC08_L2SP_028030_20200114_20200824_02_T1/LC08_L2SP_028030_20200114_20200824_02_T1_SR_B2.TIF | no
stac-items/other/LE07_L2SP_044033_20210329_20210424_02_T1_SR.json#0 | LE07_L2SP_044033_20210329_20210424_02_T1_SR | landsat-c2-l2 | 044033 | L07-044_20210329T184409 | 2021-03-29T17:57:33.490812 | 02 | 32610 | 0 | sensor | 0 | -123.169 37.968 -120.469 39.885 | 3.6841 | 033/LE07_L2SP_044033_20210329_20210424_02_T1/LE07_L2SP_044033_20210329_20210424_02_T1_SR_B1.TIF | no
stac-items/planetary-computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json#0 | S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531 | sentinel-2-l2a | 06VVN | S2B_20190629T212529 | 2019-06-29T21:25:29.024000 | 02.12 | 32606 | 0 | old | 0.314306 | -148.869 60.336 -146.818 61.334 | 1.9912 | IMG_DATA/R10m/T06VVN_20190629T212529_B02_10m.tif | yes
stac-items/planetary-computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext.json#0 | S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531 | sentinel-2-l2a | 06VVN | S2B_20190629T212529 | 2019-06-29T21:25:29.024000 | 02.12 | 32606 | 0 | old | 0.314306 | -148.869 60.336 -146.818 61.334 | 1.9912 | IMG_DATA/R10m/T06VVN_20190629T212529_B02_10m.tif | yes
stac-items/planetary-computer/sentinel-2-l2a-pc_4items_2024-04-19.json#0 | S2B_MSIL2A_20240419T095549_R122_T47XML_20240419T123458 | sentinel-2-l2a | 47XML | S2B_20240419T095549 | 2024-04-19T09:55:49.024000 | 05.10 | 32647 | -1000 | made | 0.219774 | 92.622 80.929 97.804 81.943 | 4.7279 | IMG_DATA/R10m/T47XML_20240419T095549_B02_10m.tif | yes
stac-items/planetary-computer/sentinel-2-l2a-pc_4items_2024-04-19.json#1 | S2B_MSIL2A_20240419T095549_R122_T47XMJ_20240419T122756 | sentinel-2-l2a | 47XMJ | S2B_20240419T095549 | 2024-04-19T09:55:49.024000 | 05.10 | 32647 | -1000 | made | 0.82852 | 93.768 80.119 94.860 80.133 | 0.0027 | IMG_DATA/R10m/T47XMJ_20240419T095549_B02_10m.tif | yes
stac-items/planetary-computer/sentinel-2-l2a-pc_4items_2024-04-19.json#2 | S2B_MSIL2A_20240419T095549_R122_T46XES_20240419T123824 | sentinel-2-l2a | 46XES | S2B_20240419T095549 | 2024-04-19T09:55:49.024000 | 05.10 | 32646 | -1000 | made | 0.843375 | 92.999 81.829 97.742 82.815 | 4.3706 | IMG_DATA/R10m/T46XES_20240419T095549_B02_10m.tif | yes
stac-items/planetary-computer/sentinel-2-l2a-pc_4items_2024-04-19.json#3 | S2B_MSIL2A_20240419T095549_R122_T46XER_20240419T124342 | sentinel-2-l2a | 46XER | S2B_20240419T095549 | 2024-04-19T09:55:49.024000 | 05.10 | 32646 | -1000 | made | 0.126773 | 92.999 80.933 97.804 81.957 | 4.6991 | IMG_DATA/R10m/T46XER_20240419T095549_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#0 | S2B_MSIL2A_20200606T080609_R078_T35MNM_20200826T094900 | sentinel-2-l2a | 35MNM | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.973945 | 27.000 -8.230 27.997 -7.236 | 0.9888 | IMG_DATA/R10m/T35MNM_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#1 | S2B_MSIL2A_20200606T080609_R078_T35LNL_20201027T072719 | sentinel-2-l2a | 35LNL | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.958716 | 27.000 -9.135 27.999 -8.141 | 0.9911 | IMG_DATA/R10m/T35LNL_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#2 | S2B_MSIL2A_20200606T080609_R078_T35LNK_20201027T072717 | sentinel-2-l2a | 35LNK | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.083978 | 27.000 -10.039 28.002 -9.045 | 0.9935 | IMG_DATA/R10m/T35LNK_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#3 | S2B_MSIL2A_20200606T080609_R078_T35LNJ_20201027T072717 | sentinel-2-l2a | 35LNJ | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.081327 | 27.000 -10.944 28.005 -9.949 | 0.9962 | IMG_DATA/R10m/T35LNJ_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#4 | S2B_MSIL2A_20200606T080609_R078_T35LNH_20201027T072716 | sentinel-2-l2a | 35LNH | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.319793 | 27.000 -11.848 28.008 -10.854 | 0.9992 | IMG_DATA/R10m/T35LNH_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#5 | S2B_MSIL2A_20200606T080609_R078_T35LNG_20200919T034411 | sentinel-2-l2a | 35LNG | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 3.826759 | 27.000 -12.752 28.011 -11.758 | 1.0024 | IMG_DATA/R10m/T35LNG_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#6 | S2B_MSIL2A_20200606T080609_R078_T35LNF_20201027T072716 | sentinel-2-l2a | 35LNF | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 5.371107 | 27.000 -13.657 28.015 -12.662 | 1.0059 | IMG_DATA/R10m/T35LNF_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#7 | S2B_MSIL2A_20200606T080609_R078_T35LNE_20200826T094846 | sentinel-2-l2a | 35LNE | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 16.400486 | 27.000 -14.561 28.019 -13.566 | 1.0096 | IMG_DATA/R10m/T35LNE_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site1-20200606-tall-strip-africa.geojson#8 | S2B_MSIL2A_20200606T080609_R078_T35LND_20200826T094848 | sentinel-2-l2a | 35LND | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 7.730612 | 27.000 -15.465 28.021 -14.470 | 0.9881 | IMG_DATA/R10m/T35LND_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#0 | S2A_MSIL2A_20200731T080611_R078_T35MNM_20200818T062751 | sentinel-2-l2a | 35MNM | S2A_20200731T080611 | 2020-07-31T08:06:11.024000 | 02.12 | 32735 | 0 | old | 0.004742 | 27.000 -8.230 27.997 -7.236 | 0.9888 | IMG_DATA/R10m/T35MNM_20200731T080611_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#1 | S2B_MSIL2A_20200726T080609_R078_T35MNM_20200908T180357 | sentinel-2-l2a | 35MNM | S2B_20200726T080609 | 2020-07-26T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.003642 | 27.000 -8.230 27.997 -7.236 | 0.9882 | IMG_DATA/R10m/T35MNM_20200726T080609_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#2 | S2A_MSIL2A_20200721T080611_R078_T35MNM_20200908T180356 | sentinel-2-l2a | 35MNM | S2A_20200721T080611 | 2020-07-21T08:06:11.024000 | 02.12 | 32735 | 0 | old | 0.016489 | 27.000 -8.230 27.997 -7.236 | 0.9886 | IMG_DATA/R10m/T35MNM_20200721T080611_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#3 | S2B_MSIL2A_20200716T080609_R078_T35MNM_20200816T092511 | sentinel-2-l2a | 35MNM | S2B_20200716T080609 | 2020-07-16T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.00724 | 27.000 -8.230 27.997 -7.236 | 0.9879 | IMG_DATA/R10m/T35MNM_20200716T080609_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#4 | S2A_MSIL2A_20200711T080611_R078_T35MNM_20201101T145944 | sentinel-2-l2a | 35MNM | S2A_20200711T080611 | 2020-07-11T08:06:11.024000 | 02.12 | 32735 | 0 | old | 26.800215 | 27.000 -8.230 27.997 -7.236 | 0.9884 | IMG_DATA/R10m/T35MNM_20200711T080611_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#5 | S2B_MSIL2A_20200706T080609_R078_T35MNM_20201027T081700 | sentinel-2-l2a | 35MNM | S2B_20200706T080609 | 2020-07-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.701501 | 27.000 -8.230 27.997 -7.236 | 0.9883 | IMG_DATA/R10m/T35MNM_20200706T080609_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#6 | S2A_MSIL2A_20200701T080611_R078_T35MNM_20200824T191001 | sentinel-2-l2a | 35MNM | S2A_20200701T080611 | 2020-07-01T08:06:11.024000 | 02.12 | 32735 | 0 | old | 29.220387 | 27.000 -8.230 27.997 -7.236 | 0.9887 | IMG_DATA/R10m/T35MNM_20200701T080611_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#7 | S2B_MSIL2A_20200626T080609_R078_T35MNM_20200824T052748 | sentinel-2-l2a | 35MNM | S2B_20200626T080609 | 2020-06-26T08:06:09.024000 | 02.12 | 32735 | 0 | old | 5.859933 | 27.000 -8.230 27.997 -7.236 | 0.9886 | IMG_DATA/R10m/T35MNM_20200626T080609_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#8 | S2A_MSIL2A_20200621T080611_R078_T35MNM_20200823T125142 | sentinel-2-l2a | 35MNM | S2A_20200621T080611 | 2020-06-21T08:06:11.024000 | 02.12 | 32735 | 0 | old | 1.042966 | 27.000 -8.230 27.997 -7.236 | 0.9889 | IMG_DATA/R10m/T35MNM_20200621T080611_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#9 | S2B_MSIL2A_20200616T080609_R078_T35MNM_20201027T073925 | sentinel-2-l2a | 35MNM | S2B_20200616T080609 | 2020-06-16T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.020833 | 27.000 -8.230 27.997 -7.236 | 0.9887 | IMG_DATA/R10m/T35MNM_20200616T080609_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#10 | S2A_MSIL2A_20200611T080611_R078_T35MNM_20200826T230619 | sentinel-2-l2a | 35MNM | S2A_20200611T080611 | 2020-06-11T08:06:11.024000 | 02.12 | 32735 | 0 | old | 1.206609 | 27.000 -8.230 27.997 -7.236 | 0.9889 | IMG_DATA/R10m/T35MNM_20200611T080611_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#11 | S2B_MSIL2A_20200606T080609_R078_T35MNM_20200826T094900 | sentinel-2-l2a | 35MNM | S2B_20200606T080609 | 2020-06-06T08:06:09.024000 | 02.12 | 32735 | 0 | old | 0.973945 | 27.000 -8.230 27.997 -7.236 | 0.9888 | IMG_DATA/R10m/T35MNM_20200606T080609_B02_10m.tif | yes
stac-items/planetary-computer/site2-2020_jun_jul-35MNM.geojson#12 | S2A_MSIL2A_20200601T080611_R078_T35MNM_20201027T072253 | sentinel-2-l2a | 35MNM | S2A_20200601T080611 | 2020-06-01T08:06:11.024000 | 02.12 | 32735 | 0 | old | 6.477739 | 27.000 -8.230 27.997 -7.236 | 0.9889 | IMG_DATA/R10m/T35MNM_20200601T080611_B02_10m.tif | yes
earth-search-33TWL/sentinel-2-l2a/S2A_33TWL_20230815_0_L2A/S2A_33TWL_20230815_0_L2A.json#0 | S2A_33TWL_20230815_0_L2A | sentinel-2-l2a | 33TWL | S2A_20230815T095031 | 2023-08-15T09:58:11.662000 | 05.09 | 32633 | 0 | applied | 0.20399 | 15.000 45.057 16.419 46.054 | 1.3900 | B02.tif | no
earth-search-33TWL/sentinel-2-l2a/S2A_33TWL_20230818_0_L2A/S2A_33TWL_20230818_0_L2A.json#0 | S2A_33TWL_20230818_0_L2A | sentinel-2-l2a | 33TWL | S2A_20230818T100031 | 2023-08-18T10:08:08.248000 | 05.09 | 32633 | 0 | applied | 45.745239 | 15.000 45.062 16.418 46.054 | 1.2102 | B02.tif | no
earth-search-33TWL/sentinel-2-l2a/S2B_33TWL_20230810_0_L2A/S2B_33TWL_20230810_0_L2A.json#0 | S2B_33TWL_20230810_0_L2A | sentinel-2-l2a | 33TWL | S2B_20230810T094549 | 2023-08-10T09:58:11.590000 | 05.09 | 32633 | 0 | applied | 69.286209 | 15.000 45.057 16.419 46.054 | 1.3898 | B02.tif | no
earth-search-33TWL/sentinel-2-l2a/S2B_33TWL_20230813_0_L2A/S2B_33TWL_20230813_0_L2A.json#0 | S2B_33TWL_20230813_0_L2A | sentinel-2-l2a | 33TWL | S2B_20230813T095559 | 2023-08-13T10:08:07.856000 | 05.09 | 32633 | 0 | applied | 1.702489 | 15.000 45.062 16.418 46.054 | 1.2112 | B02.tif | no
earth-search-33TWL/sentinel-2-l2a/S2B_33TWL_20230820_0_L2A/S2B_33TWL_20230820_0_L2A.json#0 | S2B_33TWL_20230820_0_L2A | sentinel-2-l2a | 33TWL | S2B_20230820T094549 | 2023-08-20T09:58:11.072000 | 05.09 | 32633 | 0 | applied | 8.066346 | 15.000 45.057 16.419 46.054 | 1.3898 | B02.tif | no
"""

REASONS = {
    "old": "baseline {baseline} is before 04.00",
    "applied": "baseline {baseline}, boa_offset_applied is true",
    "stated": "baseline {baseline}, boa_offset_applied is not there, assets state offset -0.1",
    "made": "baseline {baseline}, as ESA delivers it",
    "sensor": "landsat-c2-l2 has no such offset",
}

ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]


@pytest.fixture(scope="module")
def items(shared_data):
    """Read the item called `file#number`."""
    kept = {}

    def read(name):
        path, _, number = name.partition("#")
        if path not in kept:
            found = json.loads((shared_data / path).read_text())
            kept[path] = found if isinstance(found, list) else found.get("features", [found])
        return kept[path][int(number)]

    return read


@pytest.mark.parametrize("row", ROWS, ids=[row[0].rpartition("/")[2] for row in ROWS])
def test_every_field_of_every_item(items, row):
    name, identifier, sensor, tile, overpass, time, baseline, epsg, offset, why = row[:10]
    cloud_cover, bounds, area, blue, has_metadata = row[10:]
    item = items(name)
    scene = scene_from_item(item, base=API)
    assert scene.id == identifier
    assert scene.sensor == sensor
    assert scene.tile == tile
    assert scene.overpass == overpass
    start = datetime.strptime(overpass.split("_")[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    assert scene.overpass_start == start
    assert scene.time == datetime.fromisoformat(f"{time}+00:00")
    assert scene.baseline == baseline
    assert scene.epsg == int(epsg)
    assert scene.offset == int(offset)
    assert scene.offset_reason == REASONS[why].format(baseline=baseline)
    assert scene.cloud_cover == float(cloud_cover)
    outline = unwrapped(scene.footprint)
    assert outline.bounds == pytest.approx([float(edge) for edge in bounds.split()], abs=6e-4)
    assert outline.area == pytest.approx(float(area), abs=1e-3)
    assert scene.assets["B02"].href.endswith(blue.removeprefix("./"))
    assert scene.assets["B02"].href.startswith(("https://", "s3://"))
    assert not any("?" in asset.href for asset in scene.assets.values())
    assert scene.metadata_href.endswith("/MTD_MSIL2A.xml") == (has_metadata == "yes")
    assert bool(scene.metadata_href) == (has_metadata == "yes")


def test_the_table_has_every_item(shared_data):
    named = {row[0].partition("#")[0] for row in ROWS}
    others = {
        "stac-items/cdse/cdse_odata_response.json",
        "stac-items/cdse/creodias_opensearch_S2MSI2A.json",
        "stac-items/earth-search-v1/collections_l2a_l1c.json",
        "stac-items/other/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json",
        "stac-items/planetary-computer/sentinel-2-l2a.collection.json",
    }
    paths = [*(shared_data / "stac-items").rglob("*json")]
    paths += (shared_data / "earth-search-33TWL" / "sentinel-2-l2a").glob("*/*_L2A.json")
    assert {str(path.relative_to(shared_data)) for path in paths} == named | others


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stac-items/cdse/cdse_odata_response.json", r"gave an OData answer \(a list\)"),
        ("stac-items/cdse/creodias_opensearch_S2MSI2A.json", "gave a FeatureCollection"),
        ("stac-items/planetary-computer/sentinel-2-l2a.collection.json", "gave a Collection"),
        (
            "earth-search-33TWL/catalog.json",
            r"gave a Catalog \(earth-search-aws\), not a STAC item",
        ),
        (
            "stac-items/other/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json",
            "2aa69fcf-aa55-4747-9d95-3652f9fe79b0' is Landsat of product 'ga_ls8c_ard_3'",
        ),
    ],
)
def test_what_is_no_item_is_named(shared_data, name, text):
    with pytest.raises(InputError, match=text):
        scene_from_item(json.loads((shared_data / name).read_text()), base=API)


def test_records_of_other_interfaces_are_named(shared_data):
    folder = shared_data / "stac-items" / "cdse"
    record = json.loads((folder / "cdse_odata_response.json").read_text())["value"][0]
    with pytest.raises(InputError, match=r"OData answer .6a7b999d-1ec3-4149-89de-a80af429b7ea"):
        scene_from_item(record, base=API)
    found = json.loads((folder / "creodias_opensearch_S2MSI2A.json").read_text())["features"][0]
    with pytest.raises(
        InputError, match=r"'4889b673-d726-40b8-ac74-cbfe0f981494' is no STAC item.*OpenSearch"
    ):
        scene_from_item(found, base=API)
